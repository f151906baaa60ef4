"""The curricula's configs: a step in small from one teacher or two, and what they name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mmengine.runner import Runner

from helpers.small_scale import read
from helpers.small_scale_classification import (
    CONFIGS,
    build_without_numbers,
    hook_of,
    one_step,
    read_teacher,
)
from helpers.toy import LossRecorder, distill_hook_of

FOLDER = CONFIGS / "curricula"
CIFAR, IMAGENET = "1xb64_cifar100", "8xb32_in1k"
# Depths of the student and of the teachers, and where the latter's weights lie.
PLAIN, ASSISTANT = f"work_dirs/resnet32x4_{CIFAR}", f"work_dirs/resnet14x4_resnet32x4-kd_{CIFAR}"
TIMMS = f"work_dirs/resnet26_resnet34-kd_{IMAGENET}"
TEACHERS: dict[str, tuple[int | str, dict[str, tuple[int | str, str]]]] = {
    f"resnet14x4_resnet32x4-kd_{CIFAR}": (14, {"teacher": (32, PLAIN)}),
    f"resnet8x4_resnet14x4-takd_{CIFAR}": (8, {"teacher": (14, ASSISTANT)}),
    f"resnet8x4_resnet32x4-resnet14x4-dgkd_{CIFAR}": (
        8,
        {"first": (32, PLAIN), "assistant": (14, ASSISTANT)},
    ),
    f"resnet8x4_resnet8x4-born-again_{CIFAR}": (
        8,
        {"teacher": (8, f"work_dirs/resnet8x4_{CIFAR}")},
    ),
    f"resnet26_resnet34-kd_{IMAGENET}": ("resnet26", {"teacher": (34, "checkpoints/resnet34.pth")}),
    f"resnet18_resnet26-takd_{IMAGENET}": (18, {"teacher": ("resnet26", TIMMS)}),
    f"resnet18_resnet34-resnet26-dgkd_{IMAGENET}": (
        18,
        {"first": (34, "checkpoints/resnet34.pth"), "assistant": ("resnet26", TIMMS)},
    ),
    f"resnet18_resnet18-born-again_{IMAGENET}": (
        18,
        {"teacher": (18, f"work_dirs/resnet18_{IMAGENET}")},
    ),
}


def depth_of(model: Any) -> int | str:
    """Its number of layers, or timm's name."""
    return model.backbone.get("depth") or model.backbone.model_name


def test_all_are_looked_at() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == set(TEACHERS)


@pytest.mark.parametrize("name", TEACHERS)
def test_who_teaches_whom(name: str) -> None:
    config = read(FOLDER / f"{name}.py")
    depth, teachers = TEACHERS[name]
    assert depth_of(config.model) == depth
    hook = hook_of(config, "DistillHook")
    given = {"teacher": hook.teacher} if "config" in hook.teacher else hook.teacher
    models = {source: read_teacher(each).model for source, each in given.items()}
    assert {source: depth_of(model) for source, model in models.items()} == {
        source: depth for source, (depth, _) in teachers.items()
    }
    for model in (config.model, *models.values()):
        classes = 100 if CIFAR in name else 1000
        assert build_without_numbers(model).head.fc.out_features == classes
    last = "epoch_240.pth" if CIFAR in name else "epoch_100.pth"
    for source, (_, place) in teachers.items():
        file = place if place.endswith(".pth") else f"{place}/{last}"
        assert given[source].checkpoint == file
    # What the labels and the teachers weigh.
    kd = [term.weight for term in hook.terms.values()]
    labels = config.model.head.loss.loss_weight
    assert labels + sum(kd) == pytest.approx(len(teachers))


@pytest.mark.parametrize("name", TEACHERS)
def test_takes_a_training_step(name: str, tmp_path: Path) -> None:
    config = read(FOLDER / f"{name}.py")
    one_step(config, tmp_path, name=name)
    config.train_cfg.max_epochs = 1
    # In the single iteration none is left out.
    for term in hook_of(config, "DistillHook").terms.values():
        if "schedule" in term:
            assert term.pop("schedule") == dict(drop=0.25)
    runner = Runner.from_cfg(config)
    recorder = LossRecorder()
    runner.register_hook(recorder)
    runner.train()
    (losses,) = recorder.logged
    terms = [term.name for term in distill_hook_of(runner).terms]
    assert terms == (["first", "assistant"] if len(TEACHERS[name][1]) == 2 else ["kd"])
    assert all(losses[f"distill_{each}"] > 0 for each in terms)
