"""The curricula's configs: a step in small from one teacher or two, and what they name."""

from __future__ import annotations

from pathlib import Path

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
ASSISTANT = "resnet14x4_resnet32x4-kd_1xb64_cifar100"
# Depths of the teachers, by config.
TEACHERS = {
    ASSISTANT: {"teacher": 32},
    "resnet8x4_resnet14x4-takd_1xb64_cifar100": {"teacher": 14},
    "resnet8x4_resnet32x4-resnet14x4-dgkd_1xb64_cifar100": {"first": 32, "assistant": 14},
}


def test_all_are_looked_at() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == set(TEACHERS)


@pytest.mark.parametrize("name", TEACHERS)
def test_who_teaches_whom(name: str) -> None:
    config = read(FOLDER / f"{name}.py")
    assert config.model.backbone.depth == (14 if name == ASSISTANT else 8)
    hook = hook_of(config, "DistillHook")
    given = {"teacher": hook.teacher} if "config" in hook.teacher else hook.teacher
    models = {source: read_teacher(each).model for source, each in given.items()}
    assert {source: model.backbone.depth for source, model in models.items()} == TEACHERS[name]
    for model in (config.model, *models.values()):
        assert build_without_numbers(model).head.fc.out_features == 100
    for source, depth in TEACHERS[name].items():
        stem = ASSISTANT if depth == 14 else "resnet32x4_1xb64_cifar100"
        assert given[source].checkpoint == f"work_dirs/{stem}/epoch_240.pth"


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
    assert terms == (["first", "assistant"] if len(TEACHERS[name]) == 2 else ["kd"])
    assert all(losses[f"distill_{each}"] > 0 for each in terms)
