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
    write_teacher,
)
from mmkd.engine.mmengine.optimizer import put_back_distillers
from mmkd.errors import InputError

TERMS = dict(
    deep=dict(),
    connector=dict(level=0, weight=0.3, projector=dict(type="mmkd.ConvConnector")),
    balanced=dict(view="global", weight=dict(share=0.3)),
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
    distillers = end["mmkd"]["distillers"]
    assert any("running_mean" in key for key in distillers)
    assert distillers["balanced.balance.observed"] > 1
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


def accumulating(**overrides: Any) -> dict[str, Any]:
    """16 images in batches of 4 make 4 iterations an epoch, and a step of 3 crosses its end."""
    return {"optim_wrapper.accumulative_counts": 3, **overrides}


def test_gradients_that_wait_for_a_step(tmp_path: Path, teacher: dict) -> None:
    settings = accumulating(train_cfg=dict(max_epochs=3, val_interval=1), **distill(teacher, TERMS))
    check_resume(lambda **o: toy_config(tmp_path, **settings, **o), (1, 2))


def test_gradients_of_iterations(tmp_path: Path, teacher: dict) -> None:
    settings = accumulating(
        **{
            "train_dataloader.sampler": dict(type="InfiniteSampler"),
            "default_hooks.checkpoint": dict(interval=2, by_epoch=False),
        },
        **distill(teacher, TERMS),
    )

    def make(**overrides: Any) -> Config:
        config = toy_config(tmp_path, **settings, **overrides)
        config.train_cfg = dict(type="IterBasedTrainLoop", max_iters=7, val_interval=2)
        return config

    runner = train(make())
    saved = checkpoint_of(runner, "iter_2.pth")["mmkd"]["gradients"]
    assert sum(each is not None for each in saved[0]) > 10
    assert checkpoint_of(runner, "iter_6.pth")["mmkd"]["gradients"] == [[]]
    for done in (2, 4):
        checkpoint = str(Path(runner.work_dir) / f"iter_{done}.pth")
        resumed = train(make(load_from=checkpoint, resume=True))
        assert not differences(end_of(runner, "iter_7.pth"), end_of(resumed, "iter_7.pth"))


def test_a_step_of_another_length_takes_no_gradients(tmp_path: Path, teacher: dict) -> None:
    """They would be added to those of a step that is whole without them."""
    settings = {**distill(teacher, TERMS), "train_cfg": dict(max_epochs=1, val_interval=1)}
    runner = train(toy_config(tmp_path, **accumulating(**settings)))
    settings["train_cfg"] = dict(max_epochs=2, val_interval=1)
    checkpoint = str(Path(runner.work_dir) / "epoch_1.pth")
    seen: list[Any] = []
    probe = Probe(
        before_train_iter=lambda runner: seen.append(
            [each.grad is None for each in runner.model.parameters()]
        )
    )
    train(toy_config(tmp_path, **settings, load_from=checkpoint, resume=True), probe)
    assert all(seen[0])


# With and without the hook --------------------------------------------------------------------

GROUPS: dict[str, dict[str, Any]] = {
    "one group": {},
    "many groups": {
        "optim_wrapper.paramwise_cfg": dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
        "param_scheduler": SCHEDULES,
    },
}


@pytest.mark.parametrize("kind", GROUPS)
def test_a_plain_config_goes_on(tmp_path: Path, teacher: dict, kind: str) -> None:
    """As from a plain run's checkpoint: with weight 0 the student is a plain run's."""
    settings = {"train_cfg": dict(max_epochs=3, val_interval=1), **GROUPS[kind]}
    off = distill(teacher, dict(backbone=dict(weight=0.0)))
    distilled = Path(train(toy_config(tmp_path, **settings, **off)).work_dir) / "epoch_1.pth"
    plain = Path(train(toy_config(tmp_path, **settings)).work_dir) / "epoch_1.pth"
    left, right = (torch.load(file, weights_only=False) for file in (distilled, plain))
    assert left.keys() - right.keys() == {"mmkd"}
    for key in right.keys() - {"meta", "message_hub"}:
        assert not differences(left[key], right[key])
    ends = [
        train(toy_config(tmp_path, **settings, load_from=str(file), resume=True))
        for file in (distilled, plain)
    ]
    end, expected = (checkpoint_of(each, "epoch_3.pth") for each in ends)
    assert not differences(end["state_dict"], expected["state_dict"])
    assert not differences(end["optimizer"], expected["optimizer"])
    assert end["message_hub"]["log_scalars"].keys() == expected["message_hub"]["log_scalars"].keys()
    assert not any("distill" in key for key in end["message_hub"]["log_scalars"])


def test_a_checkpoint_of_an_earlier_version(tmp_path: Path, teacher: dict) -> None:
    """It holds the projectors' groups among the optimizer's own, and goes on with the hook."""
    settings = {**distill(teacher, TERMS), **GROUPS["many groups"]}
    runner = train(toy_config(tmp_path, **settings))
    content = checkpoint_of(runner, "epoch_1.pth")
    put_back_distillers(content, content["mmkd"].pop("optimizer"))
    content["message_hub"]["log_scalars"].update(content["message_hub"].pop("mmkd"))
    for key in ("gradients", "teachers"):
        content["mmkd"].pop(key)
    torch.save(content, tmp_path / "earlier.pth")
    resumed = train(
        toy_config(tmp_path, **settings, load_from=str(tmp_path / "earlier.pth"), resume=True)
    )
    assert not differences(end_of(runner, "epoch_2.pth"), end_of(resumed, "epoch_2.pth"))


def test_a_plain_runs_checkpoint_does_not_go_on_with_the_hook(
    tmp_path: Path, teacher: dict
) -> None:
    plain = str(Path(train(toy_config(tmp_path)).work_dir) / "epoch_1.pth")
    with pytest.raises(InputError, match=r"written without distillation.* with load_from instead"):
        train(toy_config(tmp_path, **distill(teacher), load_from=plain, resume=True))
    train(toy_config(tmp_path, **distill(teacher), load_from=plain))


def test_another_teacher(tmp_path: Path, teacher: dict) -> None:
    runner = train(toy_config(tmp_path, **distill(teacher)))
    checkpoint = str(Path(runner.work_dir) / "epoch_1.pth")
    other = write_teacher(tmp_path, "other", seed=8)
    with pytest.raises(InputError, match=r"DistillHook teacher: its weights .* without resume"):
        train(toy_config(tmp_path, **distill(other), load_from=checkpoint, resume=True))
    # Where the same weights lie does not matter.
    moved = dict(teacher, checkpoint=str(tmp_path / "moved.pth"))
    weights = torch.load(teacher["checkpoint"], weights_only=False)["state_dict"]
    torch.save(dict(weights, **{"more": torch.ones(1)}), moved["checkpoint"])
    resumed = train(toy_config(tmp_path, **distill(moved), load_from=checkpoint, resume=True))
    assert not differences(end_of(runner, "epoch_2.pth"), end_of(resumed, "epoch_2.pth"))
    train(toy_config(tmp_path, **distill(other), load_from=checkpoint))


def test_one_of_several_teachers(tmp_path: Path, teacher: dict) -> None:
    terms = dict(a=dict(source="first"), b=dict(source="second", level=0))
    both = dict(first=teacher, second=write_teacher(tmp_path, "second", seed=9))
    runner = train(toy_config(tmp_path, **distill(both, terms)))
    checkpoint = str(Path(runner.work_dir) / "epoch_1.pth")
    both["second"] = write_teacher(tmp_path, "other", seed=8)
    with pytest.raises(InputError, match=r"DistillHook teacher\.second: its weights"):
        train(toy_config(tmp_path, **distill(both, terms), load_from=checkpoint, resume=True))
