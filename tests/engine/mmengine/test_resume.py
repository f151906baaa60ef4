"""A run that was stopped and resumed ends in the bits of one that was not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from helpers.detector import detector_config, write_detector_teacher
from helpers.toy import (
    VALIDATION,
    Probe,
    checkpoint_of,
    differences,
    distill,
    distill_hook_of,
    toy_config,
    train,
)

TERMS = dict(
    deep=dict(), connector=dict(level=0, weight=0.3, projector=dict(type="mmkd.ConvConnector"))
)
SCHEDULES = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=3),
    dict(type="CosineAnnealingLR", T_max=3, by_epoch=True, convert_to_iter_based=True),
]


def end_of(runner: Runner, name: str = "epoch_3.pth") -> dict[str, Any]:
    """All that a run ends in, but for what is logged."""
    checkpoint = checkpoint_of(runner, name)
    return {k: v for k, v in checkpoint.items() if k not in ("meta", "message_hub")}


def check_resume(make: Callable[..., Config], epochs: tuple[int, ...]) -> None:
    """Resumes from the ends of ``epochs``; the next would be the last."""
    runner = train(make())
    last = f"epoch_{max(epochs) + 1}.pth"
    end = end_of(runner, last)
    assert any("running_mean" in key for key in end["mmkd"]["distillers"])
    for epoch in epochs:
        checkpoint = str(Path(runner.work_dir) / f"epoch_{epoch}.pth")
        resumed = train(make(load_from=checkpoint, resume=True))
        assert not differences(end, end_of(resumed, last))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("val_interval", [1, 2, None])
def test_toy(tmp_path: Path, teacher: dict, num_workers: int, val_interval: int | None) -> None:
    settings: dict[str, Any] = {
        "train_dataloader.num_workers": num_workers,
        "train_dataloader.dataset.flip": True,
        "param_scheduler": SCHEDULES,
        **distill(teacher, TERMS),
    }
    if val_interval is not None:
        settings |= VALIDATION
    settings["train_cfg"] = dict(max_epochs=3, val_interval=val_interval or 1)
    check_resume(lambda **o: toy_config(tmp_path, **settings, **o), (1, 2))


@pytest.mark.parametrize("validates", [True, False])
def test_faster_rcnn(tmp_path: Path, digits: Path, validates: bool) -> None:
    settings: dict[str, Any] = {
        "param_scheduler": SCHEDULES,
        **distill(write_detector_teacher(tmp_path), TERMS),
    }

    def make(**overrides: Any) -> Config:
        config = detector_config(digits, tmp_path, **settings, **overrides)
        if not validates:
            for key in ("val_dataloader", "val_cfg", "val_evaluator"):
                config[key] = None
        return config

    check_resume(make, (1,))


def test_a_checkpoint_that_was_written_again(tmp_path: Path, teacher: dict) -> None:
    """``save_best`` writes an epoch's checkpoint a second time, after its validation."""
    settings = {
        **VALIDATION,
        "default_hooks.checkpoint.save_best": "accuracy",
        "train_cfg.max_epochs": 3,
        **distill(teacher, TERMS),
    }
    runner = train(toy_config(tmp_path, **settings))
    checkpoint = str(Path(runner.work_dir) / "epoch_1.pth")
    assert torch.load(checkpoint, weights_only=False)["mmkd"]["validated"]
    resumed = train(toy_config(tmp_path, **settings, load_from=checkpoint, resume=True))
    assert not differences(end_of(runner), end_of(resumed))


@pytest.mark.parametrize("validates", [True, False])
def test_iterations(tmp_path: Path, teacher: dict, validates: bool) -> None:
    settings = {
        **(VALIDATION if validates else {}),
        "train_dataloader.sampler": dict(type="InfiniteSampler"),
        "default_hooks.checkpoint": dict(interval=2, by_epoch=False),
        **distill(teacher, TERMS),
    }

    def make(**overrides: Any) -> Config:
        config = toy_config(tmp_path, **settings, **overrides)
        config.train_cfg = dict(type="IterBasedTrainLoop", max_iters=6, val_interval=2)
        return config

    runner = train(make())
    checkpoint = str(Path(runner.work_dir) / "iter_2.pth")
    resumed = train(make(load_from=checkpoint, resume=True))
    assert not differences(end_of(runner, "iter_6.pth"), end_of(resumed, "iter_6.pth"))


def test_the_latest_checkpoint_is_found(tmp_path: Path, teacher: dict) -> None:
    def make(**overrides: Any) -> Config:
        config = toy_config(tmp_path, **distill(teacher), **overrides)
        config.work_dir = str(tmp_path / "stopped")
        return config

    def stop(runner: Runner) -> None:
        runner.train_loop.stop_training = True

    whole = train(toy_config(tmp_path, **distill(teacher)))
    train(make(), Probe(after_train_epoch=stop))
    resumed = train(make(resume=True))
    assert not differences(end_of(whole, "epoch_2.pth"), end_of(resumed, "epoch_2.pth"))


def test_projectors_are_not_taken_from_a_checkpoint_that_only_initialises(
    tmp_path: Path, teacher: dict
) -> None:
    runner = train(toy_config(tmp_path, **distill(teacher)))
    checkpoint = Path(runner.work_dir) / "epoch_2.pth"
    again = Runner.from_cfg(toy_config(tmp_path, **distill(teacher), load_from=str(checkpoint)))
    seen: dict[str, torch.Tensor] = {}

    again.register_hook(
        Probe(
            before_train=lambda runner: seen.update(
                (k, v.clone()) for k, v in distill_hook_of(runner).distillers.state_dict().items()
            )
        )
    )
    again.train()
    saved = torch.load(checkpoint, weights_only=False)["mmkd"]["distillers"]
    assert all(not torch.equal(saved[key], value) for key, value in seen.items())
