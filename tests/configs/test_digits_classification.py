"""The digits classifiers: a real training of teacher and distilled student, a step of the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from helpers.small_scale import ROOT, is_distillation, read
from mmkd.data.mmengine.handwritten_digits import HandwrittenDigits
from mmkd.runs.mmengine.classification import ClassificationRecipe
from mmkd.runs.record import TrainingRecord
from mmkd.runs.running import RunResult, train_and_evaluate
from mmkd.work_dirs import TASK_LOSS, read_work_dir

CONFIGS = ROOT / "configs/classification/digits"
STUDENTS = sorted(CONFIGS.glob("resnet8-w4_*.py"))


def config(name: str, work_dir: Path, teacher: str | None = None) -> Config:
    settings = read(CONFIGS / f"{name}.py")
    settings.work_dir = str(work_dir)
    settings.log_level = "WARNING"
    if teacher is not None:
        settings.custom_hooks[0].teacher.checkpoint = teacher
    return settings


def shorten(settings: Config) -> None:
    """Two iterations."""
    settings.train_dataloader.dataset.indices = 128
    settings.test_dataloader.dataset.indices = 20
    settings.train_cfg.max_epochs = 1
    settings.default_hooks.checkpoint.interval = 1
    settings.default_hooks.logger.interval = 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("digits")


@pytest.fixture(scope="module")
def teacher(folder: Path) -> RunResult:
    return train_and_evaluate(ClassificationRecipe(config("resnet8_digits", folder / "t")), "t")


@pytest.fixture(scope="module")
def student(folder: Path, teacher: RunResult) -> RunResult:
    settings = config("resnet8-w4_logsum_digits", folder / "s", teacher.checkpoint)
    return train_and_evaluate(ClassificationRecipe(settings), "s")


def test_both_learn(teacher: RunResult, student: RunResult) -> None:
    assert teacher.scores["top1"] > 95
    assert 60 < student.scores["top1"] < teacher.scores["top1"]
    assert teacher.parameters > 40 * student.parameters


def test_the_score_is_the_checkpoints_share_of_right_answers(student: RunResult) -> None:
    settings = read(CONFIGS / "resnet8-w4_digits.py")  # the plain one: an ordinary checkpoint
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        model = MODELS.build(settings.model).eval()
    checkpoint = torch.load(student.checkpoint, weights_only=False)
    model.load_state_dict(checkpoint["state_dict"], strict=True)
    digits = HandwrittenDigits("test")
    items = [digits[i] for i in range(len(digits))]
    images = torch.from_numpy(np.stack([each["img"] for each in items])).permute(0, 3, 1, 2)
    with torch.no_grad():
        answers = model((images.float() - 78) / 96).argmax(dim=1)
    right = (answers == torch.tensor([each["gt_label"] for each in items])).float().mean()
    assert student.scores["top1"] == pytest.approx(100 * float(right), abs=1e-3)


def test_both_losses_fall(student: RunResult) -> None:
    curves = {curve.name: curve.points for curve in read_work_dir(student.work_dir).curves}
    assert [step for step, _ in curves[TASK_LOSS]] == [20, 40, 60]
    # The head calls its cross-entropy "loss", and MMEngine logs it instead of the sum.
    task = [loss for _, loss in curves[TASK_LOSS]]
    assert np.log(10) > task[0] > task[1] > task[2] > 0
    distance = [loss for _, loss in curves["loss_distill_feature"]]
    assert distance[0] > distance[1] > distance[2]


def test_iterations_are_those_of_the_training(student: RunResult, folder: Path) -> None:
    settings = config("resnet8-w4_logsum_digits", folder / "s")
    counted = ClassificationRecipe(settings).iterations
    assert counted == torch.load(student.checkpoint, weights_only=False)["meta"]["iter"] == 60
    settings.train_dataloader.drop_last = False
    assert ClassificationRecipe(settings).iterations == 63


@pytest.mark.parametrize("path", STUDENTS, ids=lambda path: path.stem)
def test_takes_a_step(path: Path, tmp_path: Path, teacher: RunResult) -> None:
    distills = path.stem != "resnet8-w4_digits"
    settings = config(path.stem, tmp_path, teacher.checkpoint if distills else None)
    shorten(settings)
    steps: list[None] = []
    record = TrainingRecord.open(tmp_path, "test")
    trained = ClassificationRecipe(settings).train(lambda: steps.append(None), record)
    assert len(steps) == 2
    assert trained.parameters == 1782
    work = read_work_dir(tmp_path)
    names = {curve.name for curve in work.curves}
    assert is_distillation(settings) == distills == ("distill_ratio" in names)
    terms = settings.custom_hooks[0].terms if distills else {}
    assert {f"loss_distill_{name}" for name in terms} == {k for k in names if "loss_distill" in k}
    # Every value is finite, for the others would be noted.
    assert work.notes == []
