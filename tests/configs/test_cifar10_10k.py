"""The small CIFAR-10 pair takes a training step on a folder of images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from small_scale import ROOT, read

from mmkd.evaluation.figures import read_scalars
from mmkd.evaluation.mm_classification import ClassificationRecipe
from mmkd.evaluation.runs import Trained

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
    """Two iterations; what is left, and the first line of the log."""
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
    trained = recipe.train(lambda: steps.append(None))
    assert len(steps) == recipe.iterations == 2
    return trained, next(line for line in read_scalars(folder / name) if "loss" in line)


@pytest.fixture(scope="module")
def teacher(folder: Path) -> Trained:
    return train(TEACHER, folder)[0]


def test_sizes_and_scores(folder: Path, teacher: Trained) -> None:
    student, line = train(STUDENT, folder)
    assert (teacher.parameters, student.parameters) == (696_618, 78_042)
    assert student.scores["top1"] in {12.5 * right for right in range(9)}
    assert np.isfinite(line["loss"])


def test_distilled(folder: Path, teacher: Trained) -> None:
    student, line = train(DISTILLED, folder, teacher.checkpoint)
    assert student.parameters == 78_042
    assert line["loss_distill_feature"] == pytest.approx(line["distill_feature"], rel=1e-6)
    assert line["loss_distill_feature"] > 0
