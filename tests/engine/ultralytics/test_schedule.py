"""The projectors' learning rates, and the terms that come and go over a training."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from helpers.toy import differences
from helpers.yolo_toy import TERM, YOLOToy, distil, network, read_results

# Without a normalizer, which would make the gradients of the last layers' biases vanish.
PLAIN = dict(normalizer=dict(type="mmkd.IdentityNormalizer"), weight=0.1)
PROJECTORS = {
    TERM: PLAIN,
    "mlp": dict(projector=dict(type="mmkd.MLPProjector", hidden_channels=8), **PLAIN),
    "ensemble": dict(projector=dict(type="mmkd.ProjectorEnsemble"), **PLAIN),
    "connector": dict(
        projector=dict(type="mmkd.ConvConnector"), student="model.7", teacher="model.7", **PLAIN
    ),
}
LR, LRF, BIAS_LR, EPOCHS, BATCHES, WARMUP = 0.02, 0.1, 0.05, 3, 4, 6
SCHEDULED: dict[str, Any] = dict(
    epochs=EPOCHS,
    lr0=LR,
    lrf=LRF,
    warmup_bias_lr=BIAS_LR,
    warmup_epochs=WARMUP / BATCHES,
    weight_decay=0.003,
)


class Optimization:
    """What an optimizer does to the projectors in a run.

    Attributes:
        groups: For each iteration, learning rate, momentum and weight decay of every parameter.
        gradients: For each optimizer step, the projectors' gradients.
        initial: The projectors' parameters before the first iteration.
    """

    def __init__(self, toy: YOLOToy, **settings: Any) -> None:
        self.groups: list[dict[str, dict[str, Any]]] = []
        self.gradients: list[dict[str, Tensor | None]] = []
        on = dict(on_train_start=self._start, on_train_batch_end=self._note)
        self.trainer = distil(toy, PROJECTORS, on=on, **SCHEDULED, **settings)
        self.distillers = self.trainer.distillation.distillers

    def _start(self, trainer: Any) -> None:
        distillers = trainer.distillation.distillers
        self.initial = copy.deepcopy(dict(distillers.named_parameters()))

        def keep(*_: Any) -> None:
            named = distillers.named_parameters()
            self.gradients.append({k: copy.deepcopy(p.grad) for k, p in named})

        trainer.optimizer.register_step_pre_hook(keep)

    def _note(self, trainer: Any) -> None:
        names = {
            id(parameter): name
            for module, prefix in (
                (network(trainer), "student."),
                (trainer.distillation.distillers, "distillers."),
            )
            for name, parameter in module.named_parameters(prefix.rstrip("."))
        }
        self.groups.append(
            {
                names[id(parameter)]: {k: v for k, v in group.items() if k != "params"}
                for group in trainer.optimizer.param_groups
                for parameter in group["params"]
            }
        )


@pytest.fixture(scope="module", params=["SGD", "AdamW", "MuSGD"])
def optimization(request: pytest.FixtureRequest, toy: YOLOToy) -> Optimization:
    return Optimization(toy, optimizer=request.param, cos_lr=request.param == "AdamW")


def kind_of(name: str, parameter: Tensor, optimizer: str) -> str:
    """The kind of group that a projector's parameter belongs to."""
    if optimizer == "MuSGD" and parameter.ndim in (2, 4):
        return "muon"
    if name.endswith("bias"):
        return "bias"
    return "weight" if parameter.ndim > 1 else "bn"


def expected_rate(iteration: int, is_bias: bool, cosine: bool) -> float:
    """Warm-up over the first iterations, then the epoch's rate, from the formulas."""
    progress = iteration // BATCHES / EPOCHS
    left = (1 + np.cos(np.pi * progress)) / 2 if cosine else 1 - progress
    rate = LR * (left * (1 - LRF) + LRF)
    if iteration > WARMUP:
        return rate
    begin = BIAS_LR if is_bias else 0.0
    return begin + (rate - begin) * iteration / WARMUP


def test_projectors_follow_warm_up_and_schedule(optimization: Optimization) -> None:
    trainer = optimization.trainer
    kinds = {
        f"distillers.{name}": kind_of(name, parameter, trainer.args.optimizer)
        for name, parameter in optimization.distillers.named_parameters()
    }
    assert len(kinds) == 2 + 4 + 2 + 9
    assert len(optimization.groups) == EPOCHS * BATCHES
    for iteration, groups in enumerate(optimization.groups):
        for name, kind in kinds.items():
            rate = expected_rate(iteration, kind == "bias", trainer.args.cos_lr)
            assert groups[name]["lr"] == pytest.approx(rate), (iteration, name)
            assert groups[name]["param_group"] == kind, name


def test_projectors_are_treated_as_the_students_layers(optimization: Optimization) -> None:
    """A projector's weight as a convolution's, its bias and its BatchNorm likewise."""
    student = {
        "weight": "student.model.0.conv.weight",
        "muon": "student.model.0.conv.weight",
        "bn": "student.model.0.bn.weight",
        "bias": "student.model.0.bn.bias",
    }
    decays = {"weight": 0.003, "muon": 0.003, "bn": 0.0, "bias": 0.0}
    for groups in optimization.groups:
        for name, parameter in optimization.distillers.named_parameters():
            kind = kind_of(name, parameter, optimization.trainer.args.optimizer)
            group = groups[f"distillers.{name}"]
            assert group == groups[student[kind]], name
            assert group["weight_decay"] == decays[kind]


def test_every_projector_parameter_is_trained_once(optimization: Optimization) -> None:
    trainer = optimization.trainer
    trained = [id(p) for group in trainer.optimizer.param_groups for p in group["params"]]
    for parameter in (*optimization.distillers.parameters(), *network(trainer).parameters()):
        assert trained.count(id(parameter)) == 1
    assert len(trained) == len(set(trained))
    assert len(optimization.gradients) == EPOCHS * BATCHES
    for gradients in optimization.gradients:
        assert all(gradient is not None and gradient.any() for gradient in gradients.values())
    after = dict(optimization.distillers.named_parameters())
    assert len(differences(optimization.initial, after)) == len(after)


def test_projectors_have_a_limit_of_their_own_on_the_gradients_norm(toy: YOLOToy) -> None:
    """The student's gradient is limited as in a plain run; the projectors' apart from it."""
    norms: list[float] = []

    def start(trainer: Any) -> None:
        parameters = list(trainer.distillation.distillers.parameters())
        trainer.optimizer.register_step_pre_hook(
            lambda *_: norms.append(nn.utils.get_total_norm([p.grad for p in parameters]).item())
        )

    distil(toy, {TERM: dict(weight=1000.0)}, on=dict(on_train_start=start), epochs=1)
    assert norms == pytest.approx([10.0] * 4, rel=1e-4)


# Terms that come and go -----------------------------------------------------------------------


class Phases:
    """Each iteration of a run whose terms come and go."""

    def __init__(self, toy: YOLOToy, terms: dict[str, Any], **settings: Any) -> None:
        self.factors: list[dict[str, float]] = []
        self.logged: list[dict[str, float]] = []
        self.teacher_calls = [0]
        on: dict[str, Callable[[Any], None]] = dict(
            on_train_start=self._start, on_train_batch_end=self._note
        )
        self.trainer = distil(toy, terms, on=on, **settings)
        self.teacher_calls.pop()

    def _start(self, trainer: Any) -> None:
        model = trainer.distillation.teachers["teacher"].model
        model.register_forward_pre_hook(self._count)

    def _count(self, *_: Any) -> None:
        self.teacher_calls[-1] += 1

    def _note(self, trainer: Any) -> None:
        self.factors.append(dict(trainer.distillation.factors))
        self.logged.append({k: float(v) for k, v in trainer.loss_items.items() if "kd_" in k})
        self.teacher_calls.append(0)


@pytest.fixture(scope="module")
def phases(toy: YOLOToy) -> Phases:
    return Phases(
        toy,
        dict(
            # By epochs: rises over the first, and ends with it.
            rising=dict(schedule=dict(end=1, ramp=1), weight=0.5),
            # By iterations: from the seventh to the tenth.
            late=dict(schedule=dict(begin=6, end=10, by_epoch=False)),
        ),
        nbs=12,
        epochs=3,
    )


def test_terms_come_and_go(phases: Phases) -> None:
    rising = [{}, {"rising": 0.25}, {"rising": 0.5}, {"rising": 0.75}]
    assert phases.factors == [*rising, {}, {}, *[{"late": 1.0}] * 4, {}, {}]


def test_the_teacher_runs_where_a_term_is_on(phases: Phases) -> None:
    assert phases.teacher_calls == [0, 1, 1, 1, 0, 0, 1, 1, 1, 1, 0, 0]


def test_a_term_that_is_off_is_logged_as_zero(phases: Phases) -> None:
    for factors, logged in zip(phases.factors, phases.logged, strict=True):
        assert list(logged) == ["kd_rising_loss", "kd_late_loss"]
        for name in ("rising", "late"):
            assert (logged[f"kd_{name}_loss"] > 0) == (name in factors)
    results = read_results(phases.trainer)
    for name in ("kd_rising_loss", "kd_late_loss"):
        values = torch.tensor([logged[name] for logged in phases.logged])
        means = values.view(3, 4).mean(1).tolist()
        assert results[f"train/{name}"] == pytest.approx(means, abs=1e-4)
