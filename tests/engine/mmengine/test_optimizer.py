"""Projectors are trained as if they had been in the optimizer from the start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.runner import Runner

from helpers.toy import (
    VALIDATION,
    LossRecorder,
    Probe,
    ToyLayerwise,
    distill,
    distill_hook_of,
    toy_config,
    train,
)

ADAMW = dict(type="AdamW", lr=0.01, weight_decay=0.05)
SGD = dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=0.05)
SCHEDULES: dict[str, list[dict]] = {
    "warm-up and steps": [
        dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=3),
        dict(type="MultiStepLR", milestones=[1, 2], gamma=0.3, by_epoch=True, begin=0, end=3),
    ],
    "cosine by iteration": [
        dict(
            type="CosineAnnealingLR",
            T_max=3,
            eta_min_ratio=0.1,
            by_epoch=True,
            begin=0,
            end=3,
            convert_to_iter_based=True,
        )
    ],
    "cosine by epoch": [dict(type="CosineAnnealingLR", T_max=3, eta_min=1e-4, begin=1, end=3)],
    "one cycle": [
        dict(type="OneCycleLR", eta_max=0.02, total_steps=12, by_epoch=False, begin=0, end=12)
    ],
    "one cycle of epochs": [
        dict(type="OneCycleLR", eta_max=0.02, total_steps=3, convert_to_iter_based=True)
    ],
    "warm-up, then one cycle": [
        dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=4),
        dict(type="OneCycleLR", eta_max=0.02, total_steps=8, by_epoch=False, begin=4, end=12),
    ],
    "momentum": [
        dict(type="LinearMomentum", start_factor=0.5, by_epoch=False, begin=0, end=4),
        dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=4),
        dict(type="StepMomentum", step_size=2, gamma=0.9, by_epoch=True),
    ],
    "none": [],
}


class Values:
    """What every group, the wrapper's base settings included, holds at each iteration."""

    def __init__(self) -> None:
        self.of_iterations: list[list[dict[str, Any]]] = []
        self.probe = Probe(before_train_iter=self.record)

    def record(self, runner: Runner) -> None:
        groups = runner.optim_wrapper.param_groups
        keys = ("lr", "momentum", "betas", "weight_decay")
        self.of_iterations.append([{k: g[k] for k in keys if k in g} for g in groups])


@pytest.mark.parametrize(
    ("optimizer", "paramwise"), [(ADAMW, True), (SGD, False)], ids=["AdamW in groups", "SGD"]
)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules(
    tmp_path: Path, teacher: dict, schedule: str, optimizer: dict, paramwise: bool
) -> None:
    settings: dict[str, Any] = {
        "train_cfg.max_epochs": 3,
        "optim_wrapper": dict(optimizer=dict(_delete_=True, **optimizer)),
        "param_scheduler": SCHEDULES[schedule] or None,
        "auto_scale_lr": dict(enable=schedule != "none", base_batch_size=16),
    }
    if paramwise:
        settings["optim_wrapper"]["paramwise_cfg"] = dict(
            custom_keys={"head": dict(lr_mult=2.0, decay_mult=0.5)}
        )
    plain, distilled = Values(), Values()
    train(toy_config(tmp_path, **settings), plain.probe)
    train(toy_config(tmp_path, **settings, **distill(teacher)), distilled.probe)
    assert len(plain.of_iterations) == 12
    for ours, theirs in zip(plain.of_iterations, distilled.of_iterations, strict=True):
        # The wrapper's own settings, where there are any, come last.
        base = ours[-1:] if paramwise else []
        groups = ours[: len(ours) - len(base)]
        projectors = theirs[len(groups) : len(theirs) - len(base)]
        assert theirs == groups + projectors + base
        assert len(projectors) == (2 if paramwise else 1)
        assert all(group == groups[0] for group in projectors)


def test_reduce_on_plateau(tmp_path: Path, teacher: dict) -> None:
    settings = {
        **VALIDATION,
        "train_cfg.max_epochs": 3,
        "param_scheduler": [
            dict(type="ReduceOnPlateauLR", monitor="accuracy", rule="less", patience=0)
        ],
    }
    values = Values()
    train(toy_config(tmp_path, **settings, **distill(teacher)), values.probe)
    assert all(student == projector for student, projector in values.of_iterations)
    assert values.of_iterations[-1][0]["lr"] < values.of_iterations[0][0]["lr"]


def group_of(runner: Runner, parameter: torch.Tensor) -> dict[str, Any]:
    groups = runner.optim_wrapper.optimizer.param_groups
    (found,) = [g for g in groups if any(p is parameter for p in g["params"])]
    return found


@pytest.mark.parametrize(
    ("paramwise", "weight", "bias"),
    [
        (dict(bias_decay_mult=0.0), (0.01, 0.05), (0.01, 0.0)),
        (dict(bias_lr_mult=2.0), (0.01, 0.05), (0.02, 0.05)),
        (dict(custom_keys={"backbone": dict(lr_mult=0.1)}), (0.01, 0.05), (0.01, 0.05)),
        (
            dict(custom_keys={"distill": dict(lr_mult=5.0, decay_mult=0.2)}),
            (0.05, 0.01),
            (0.05, 0.01),
        ),
        (
            dict(bias_lr_mult=2.0, custom_keys={"distill.projector": dict(decay_mult=0.0)}),
            (0.01, 0.0),
            (0.01, 0.0),
        ),
        (dict(norm_decay_mult=0.0), (0.01, 0.05), (0.01, 0.05)),
    ],
)
def test_paramwise(
    tmp_path: Path, teacher: dict, paramwise: dict, weight: tuple, bias: tuple
) -> None:
    terms = dict(
        backbone=dict(), connector=dict(projector=dict(type="mmkd.ConvConnector", layout="1x1"))
    )
    settings = {"optim_wrapper.paramwise_cfg": paramwise, **distill(teacher, terms)}
    runner = train(toy_config(tmp_path, **settings, **{"train_cfg.max_epochs": 1}))
    distillers = distill_hook_of(runner).distillers
    linear = distillers["backbone"].projector.linear
    for parameter, expected in ((linear.weight, weight), (linear.bias, bias)):
        group = group_of(runner, parameter)
        assert (group["lr"], group["weight_decay"]) == pytest.approx(expected)
    norm = group_of(runner, distillers["connector"].projector.layers[1].weight)
    no_decay = "norm_decay_mult" in paramwise or weight[1] == 0.0
    assert norm["weight_decay"] == pytest.approx(0.0 if no_decay else weight[1])


@pytest.mark.parametrize("constructor", ["ToyLayerwise", ToyLayerwise])
def test_a_constructor_that_knows_only_its_own_backbones(
    tmp_path: Path, teacher: dict, constructor: Any
) -> None:
    config = toy_config(tmp_path, **distill(teacher))
    config.optim_wrapper.constructor = constructor
    config.optim_wrapper.paramwise_cfg = dict(decay_rate=0.5)
    runner = train(config)
    projector = distill_hook_of(runner).distillers["backbone"].projector
    group = group_of(runner, projector.linear.weight)
    assert (group["lr"], group["weight_decay"]) == (0.01, 0.05)


# One step, by hand ------------------------------------------------------------------------

LR = 0.1


def weights_of(runner: Runner) -> torch.Tensor:
    """All trained weights in one vector: the student's, then the projector's."""
    hook = distill_hook_of(runner)
    parameters = [*runner.model.parameters(), *hook.distillers.parameters()]
    return torch.cat([p.detach().flatten() for p in parameters]).clone()


class Weights:
    """All trained weights before training and after every iteration."""

    def __init__(self) -> None:
        self.of_iterations: list[torch.Tensor] = []
        keep: Callable[[Runner], None] = lambda runner: self.of_iterations.append(  # noqa: E731
            weights_of(runner)
        )
        self.probe = Probe(before_train=keep, after_train_iter=keep)

    def steps(self) -> list[torch.Tensor]:
        """What every iteration added."""
        after, before = self.of_iterations[1:], self.of_iterations[:-1]
        return [a - b for a, b in zip(after, before, strict=True)]


def steps_of(tmp_path: Path, teacher: dict, **optim_wrapper: Any) -> tuple[list, list]:
    weights, losses = Weights(), LossRecorder()
    config = toy_config(tmp_path, **distill(teacher))
    config.optim_wrapper = dict(optimizer=dict(type="SGD", lr=LR), **optim_wrapper)
    train(config, weights.probe, losses)
    return weights.steps(), losses.logged


def test_clipping_sees_the_projectors(tmp_path: Path, teacher: dict) -> None:
    gradient = steps_of(tmp_path, teacher)[0][0] / -LR
    norm = gradient.norm()
    max_norm = float(norm) / 3
    clipped = steps_of(tmp_path, teacher, clip_grad=dict(max_norm=max_norm))[0][0] / -LR
    torch.testing.assert_close(clipped, gradient * max_norm / norm, rtol=1e-4, atol=1e-6)
    by_value = steps_of(tmp_path, teacher, clip_grad=dict(type="value", clip_value=0.01))[0][0]
    torch.testing.assert_close(by_value / -LR, gradient.clamp(-0.01, 0.01), rtol=1e-4, atol=1e-6)


def test_accumulation_averages_gradients(tmp_path: Path, teacher: dict) -> None:
    """Four iterations of gradients at the initial weights, and steps over two and two."""
    gradients: list[torch.Tensor] = []

    def keep_gradients(runner: Runner) -> None:
        optimizer = runner.optim_wrapper.optimizer

        def before_step(*args: Any) -> None:
            hook = distill_hook_of(runner)
            parameters = [*runner.model.parameters(), *hook.distillers.parameters()]
            gradients.append(torch.cat([p.grad.flatten() for p in parameters]).clone())

        optimizer.register_step_pre_hook(before_step)

    config = toy_config(tmp_path, **distill(teacher), **{"train_cfg.max_epochs": 1})
    config.optim_wrapper.optimizer = dict(type="SGD", lr=0.0)
    train(config, Probe(before_train=keep_gradients))
    assert len(gradients) == 4
    steps, _ = steps_of(tmp_path, teacher, accumulative_counts=2)
    assert not steps[0].any()
    expected = -LR * (gradients[0] + gradients[1]) / 2
    torch.testing.assert_close(steps[1], expected, rtol=1e-4, atol=1e-6)
