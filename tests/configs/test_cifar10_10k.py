"""The small CIFAR-10 pair takes a training step on a folder of images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers.small_scale import ROOT, read
from mmkd.runs.mmengine.classification import ClassificationRecipe
from mmkd.runs.recipe import Trained
from mmkd.runs.record import TrainingRecord
from mmkd.work_dirs import TASK_LOSS, read_work_dir

CONFIGS = ROOT / "configs/classification/cifar10_10k"
TEACHER, STUDENT = "resnet14_cifar10-10k", "resnet8_cifar10-10k"
DISTILLED = "resnet8_resnet14-logsum_cifar10-10k"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images of two classes in either split."""
    root = tmp_path_factory.mktemp("cifar")
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for i in range(4):
                image = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                cv2.imwrite(str(root / split / name / f"{i}.jpg"), image)
    return root


def train(name: str, folder: Path, teacher: str | None = None) -> tuple[Trained, dict[str, float]]:
    """Two iterations; what is left, and the first values that were logged."""
    settings = read(CONFIGS / f"{name}.py")
    settings.work_dir = str(folder / name)
    settings.log_level = "WARNING"
    for split in ("train", "test"):
        settings[f"{split}_dataloader"].dataset.data_root = str(folder)
    settings.train_dataloader.batch_size = 4
    settings.train_cfg.max_epochs = 1
    settings.default_hooks.checkpoint.interval = 1
    settings.default_hooks.logger.interval = 1
    if teacher is not None:
        settings.custom_hooks[0].teacher.checkpoint = teacher
    recipe = ClassificationRecipe(settings)
    steps: list[None] = []
    recipe.work_dir.mkdir()
    record = TrainingRecord.open(recipe.work_dir, "test")
    trained = recipe.train(lambda: steps.append(None), record)
    assert len(steps) == recipe.iterations == 2
    curves = read_work_dir(folder / name).curves
    return trained, {curve.name: curve.points[0][1] for curve in curves}


@pytest.fixture(scope="module")
def teacher(folder: Path) -> Trained:
    return train(TEACHER, folder)[0]


def test_sizes_and_scores(folder: Path, teacher: Trained) -> None:
    student, first = train(STUDENT, folder)
    assert (teacher.parameters, student.parameters) == (696_618, 78_042)
    assert student.scores["top1"] in {12.5 * right for right in range(9)}
    assert first[TASK_LOSS] > 0


def test_distilled(folder: Path, teacher: Trained) -> None:
    student, first = train(DISTILLED, folder, teacher.checkpoint)
    assert student.parameters == 78_042
    assert first["loss_distill_feature"] == pytest.approx(first["distill_feature"], rel=1e-6)
    assert first["loss_distill_feature"] > 0
