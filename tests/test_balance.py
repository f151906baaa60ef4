"""A share of the gradient: by hand, in trainings, and what arrives where in a backward pass."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mmkd.balance import Arrived, GradientMeter, GradientShare, parse_weight, together
from mmkd.distiller import Distiller
from mmkd.engine.plain import PlainDistillation, distill
from mmkd.registry import MODELS


def arrived(task: float, own: float) -> Arrived:
    return Arrived(*map(torch.tensor, (task, own, 0.0, 0.0)))


# The rule --------------------------------------------------------------------------------------


@given(
    share=st.floats(0.01, 0.95),
    task=st.floats(1e-3, 1e3),
    own=st.floats(1e-2, 1e2),
    iterations=st.integers(1, 5),
)
def test_constant_gradients_give_the_share_at_once(
    share: float, task: float, own: float, iterations: int
) -> None:
    rule = GradientShare(share)
    assert rule.weight == 0
    for _ in range(iterations):
        rule.observe(arrived(task, own))
    weighted = rule.weight.item() * own
    assert weighted / (task + weighted) == pytest.approx(share, rel=1e-4)


def test_the_ratio_is_a_geometric_mean_and_then_a_moving_one() -> None:
    rule, logs = GradientShare(0.5), []
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        logs.append(torch.randn((), generator=generator).item() / 4)
        rule.observe(arrived(math.exp(logs[-1]), 1.0))
        if len(logs) == 40:
            assert rule.log_ratio.item() == pytest.approx(sum(logs) / 40, abs=1e-5)
    mean = sum(logs[:50]) / 50
    for each in logs[50:]:
        mean += (each - mean) / 50
    assert rule.log_ratio.item() == pytest.approx(mean, abs=1e-5)


def test_an_outlier_counts_as_a_factor_of_e_squared() -> None:
    rule = GradientShare(0.5)
    for _ in range(9):
        rule.observe(arrived(1.0, 1.0))
    rule.observe(arrived(1e30, 1.0))
    assert rule.log_ratio.item() == pytest.approx(2.0 / 10)


@pytest.mark.parametrize("task, own", [(math.inf, 1), (math.nan, 1), (1, 0), (0, 1), (0, 0)])
def test_what_is_not_finite_or_zero_counts_for_nothing(task: float, own: float) -> None:
    rule = GradientShare(0.3)
    rule.observe(arrived(task, own))
    assert rule.weight == 0 and rule.observed == 0
    rule.observe(arrived(4.0, 2.0))
    before = rule.weight.clone()
    rule.observe(arrived(task, own))
    assert rule.weight == before and rule.observed == 1


def test_the_weight_is_bounded() -> None:
    rule = GradientShare(0.5)
    rule.observe(arrived(1.0, 1.0))
    assert not rule.is_at_bound
    rule = GradientShare(0.5)
    rule.observe(arrived(1.0, 1e-20))
    assert rule.weight == 1e5 and rule.is_at_bound
    rule = GradientShare(0.5)
    rule.observe(arrived(1e-20, 1.0))
    assert rule.weight.item() == pytest.approx(1e-5) and rule.is_at_bound


@pytest.mark.parametrize(
    "weight, message",
    [
        (dict(share=1.0), "share must be from 0 to less than 1, got 1.0"),
        (dict(share=-0.1), "share must be from 0 to less than 1, got -0.1"),
        (dict(share="much"), "share must be from 0 to less than 1, got 'much'"),
        (dict(shares=0.1), "weight has no key 'shares'"),
        (dict(), r"weight must be a number or dict\(share=...\), got {}"),
        ("3", r"weight must be a number or dict\(share=...\), got '3'"),
        (-1, "weight must be 0 or more, got -1"),
        (math.nan, "weight must be 0 or more, got nan"),
        (1e39, "weight must be finite in float32"),
    ],
)
def test_wrong_weights(weight: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_weight(weight)


def test_shares_at_one_feature_leave_something_to_the_task() -> None:
    a, b, c = GradientShare(0.5), GradientShare(0.4), GradientShare(0.9)
    together(dict(a=(a, "f"), b=(b, "f"), c=(c, "g")))
    assert a.together == b.together == pytest.approx(0.9) and c.together == 0.9
    with pytest.raises(ValueError, match="the shares of a, c, at the same feature as a"):
        together(dict(a=(a, "f"), c=(c, "f")))


def test_a_share_is_kept_by_trainings_alone() -> None:
    with pytest.raises(RuntimeError, match="give weight a number"):
        Distiller(dict(share=0.3))(torch.zeros(1, 1), torch.zeros(1, 1))


# The backward pass -----------------------------------------------------------------------------


def heard(run: Callable[[GradientMeter, Tensor], None], feature: Tensor) -> dict[str, Arrived]:
    found: dict[str, Arrived] = {}
    run(GradientMeter(found.update), feature)
    return found


TASK, OWN, OTHER = (
    torch.tensor([[3.0, 0.0, 4.0]]),
    torch.tensor([[0.0, 6.0, 8.0]]),
    torch.tensor([[1.0, 2.0, 2.0]]),
)


def backward(scale: float = 1.0, *, apart: int | None = None) -> dict[str, Arrived]:
    """Linear losses, whose gradients are those above."""
    parameter = torch.zeros(1, 3, requires_grad=True)

    def run(meter: GradientMeter, feature: Tensor) -> None:
        feature = feature * 1.0
        losses = [(feature * TASK).sum()]
        for name, gradient, weight in (("own", OWN, 2.0), ("other", OTHER, 0.5)):
            weighted = weight * (meter.branch(name, feature) * gradient).sum()
            meter.listen(name, weighted, weight)
            losses.append(weighted)
        if apart is None:
            (scale * torch.stack(losses).sum()).backward()
            return
        for part in (losses[:1], losses[1:])[:: 1 - 2 * apart]:
            (scale * torch.stack(part).sum()).backward(retain_graph=True)

    found = heard(run, parameter)
    assert torch.allclose(parameter.grad, scale * (TASK + 2 * OWN + 0.5 * OTHER))
    return found


@pytest.mark.parametrize("scale", [1.0, 65536.0, 1 / 3])
@pytest.mark.parametrize("apart", [None, 0, 1])
def test_what_arrives_is_told_apart(scale: float, apart: int | None) -> None:
    found = backward(scale, apart=apart)
    own, other = found["own"], found["other"]
    assert own.task.item() == pytest.approx(5) and other.task.item() == pytest.approx(5)
    assert own.own.item() == pytest.approx(10) and other.own.item() == pytest.approx(3)
    if apart is None:
        assert own.cosine.item() == pytest.approx(32 / 50)
        assert other.cosine.item() == pytest.approx(11 / 15)
    assert own.share.item() == pytest.approx(20 / 26.5)
    assert other.share.item() == pytest.approx(1.5 / 26.5)


def test_a_hidden_weight_is_measured_by_its_unit() -> None:
    def run(meter: GradientMeter, feature: Tensor) -> None:
        feature = feature * 1.0
        weighted = 0.0 * (meter.branch("own", feature) * OWN).sum()
        meter.listen("own", weighted, 0.0, torch.tensor(100.0))
        (8 * (weighted + (feature * TASK).sum())).backward()

    found = heard(run, torch.zeros(1, 3, requires_grad=True))["own"]
    assert (found.task, found.own, found.share) == (5, 10, 0)


def test_features_are_free_after_the_pass() -> None:
    found: list[weakref.ref] = []

    def run(meter: GradientMeter, feature: Tensor) -> None:
        feature = feature * 1.0
        weighted = (meter.branch("own", feature) * OWN).sum()
        meter.listen("own", weighted, 1.0)
        (weighted + feature.sum()).backward()
        found.append(weakref.ref(feature))

    heard(run, torch.zeros(1, 3, requires_grad=True))
    assert found[0]() is None


# A training ------------------------------------------------------------------------------------


class Student(nn.Module):
    """A feature that is its parameter, so that gradients at it are known."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone(images)


@MODELS.register_module()
class LinearDistance(Distiller):
    """``scale * <student, 1>``: its gradient is ``scale`` everywhere."""

    def __init__(self, scale: float, weight: float | dict = 1.0) -> None:
        super().__init__(weight)
        self.scale = scale

    def distance(self, student: Tensor, teacher: Tensor, targets: object = None) -> Tensor:
        return self.scale * student.sum()


FORMAT = dict(mean=[0.0, 0, 0], std=[1.0, 1, 1], order="rgb")


def linear(share: float, scale: float = 4.0) -> dict:
    return dict(type="mmkd.LinearDistance", scale=scale, weight=dict(share=share))


def training(terms: dict) -> PlainDistillation:
    torch.manual_seed(0)
    return distill(
        Student(), teacher=dict(module=Student()), terms=terms, images=FORMAT, probe_size=4
    )


def step(training: PlainDistillation, task: Tensor, scale: float = 1.0) -> Tensor:
    """One iteration whose task has the gradient ``task``; the term's part of the objective."""
    images = torch.ones(2, 3, 4, 4)
    loss = (training._student(images) * task).sum()
    term = training.loss(images)
    (scale * (loss + term)).backward()
    return term.detach()


def test_a_two_loss_problem_solved_by_hand() -> None:
    """64 entries; the task's gradient is 1 everywhere, the term's 4: w = s / (1 - s) / 4."""
    with training(dict(term=linear(0.2))) as of:
        shares = []
        for _ in range(4):
            step(of, torch.ones(2, 2, 4, 4))
            shares.append(float(of.measured["term"].share))
        assert float(of.measured["term"].weight) == pytest.approx(0.25 / 4)
        assert shares == pytest.approx([0, 0, 0.2, 0.2])


def test_two_terms_at_one_feature_and_a_loss_scale() -> None:
    with training(dict(a=linear(0.2), b=linear(0.3, 1.0))) as of:
        for _ in range(3):
            step(of, torch.full((2, 2, 4, 4), 5.0), scale=1024.0)
        assert float(of.measured["a"].weight) == pytest.approx(0.2 / 0.5 * 5 / 4)
        assert float(of.measured["b"].weight) == pytest.approx(0.3 / 0.5 * 5 / 1)
        assert float(of.measured["a"].share) == pytest.approx(0.2)
        assert float(of.measured["b"].share) == pytest.approx(0.3)


def test_a_schedule_is_a_further_factor() -> None:
    term = linear(0.5) | dict(schedule=dict(ramp=4, by_epoch=False))
    with training(dict(term=term)) as of:
        weights = []
        for _ in range(6):
            step(of, torch.ones(2, 2, 4, 4))
            weights.append(float(of.measured["term"].weight) if of.measured else None)
    # Off in the first, hidden in the second, then three and four quarters of 1 / 4.
    assert weights == [None, 0.0, *map(pytest.approx, (0.125, 0.1875, 0.25, 0.25))]


def test_loss_scales_that_overflow_only_delay_it() -> None:
    with training(dict(term=linear(0.5))) as of:
        for _ in range(12):
            step(of, torch.full((2, 2, 4, 4), math.inf))
        assert float(of.measured["term"].weight) == 0
        for _ in range(2):
            step(of, torch.ones(2, 2, 4, 4))
        assert float(of.measured["term"].weight) == pytest.approx(0.25)


def test_a_gradient_that_vanishes_in_half_precision_without_its_loss_scale() -> None:
    with training(dict(term=linear(0.2, 1e-9))) as of, torch.autocast("cpu", torch.float16):
        for _ in range(3):
            step(of, torch.full((2, 2, 4, 4), 1e-6), scale=2.0**14)
        assert float(of.measured["term"].weight) == pytest.approx(0.25 * 1e3, rel=0.01)
        assert float(of.measured["term"].share) == pytest.approx(0.2, rel=0.01)


def test_a_term_that_is_off_takes_no_share() -> None:
    short = linear(0.3) | dict(schedule=dict(end=2, by_epoch=False))
    with training(dict(a=linear(0.2), b=short)) as of:
        weights = []
        for _ in range(4):
            step(of, torch.ones(2, 2, 4, 4))
            weights.append(float(of.measured["a"].weight))
    # Of a gradient of 4 beside the task's 1: together they leave a half to the task, then four
    # fifths.
    assert weights == pytest.approx([0, 0.2 / 0.5 / 4, 0.2 / 0.8 / 4, 0.2 / 0.8 / 4])


def test_the_state_is_saved_and_resumed_to_the_bit() -> None:
    generator = torch.Generator().manual_seed(1)
    tasks = [torch.randn(2, 2, 4, 4, generator=generator) for _ in range(8)]
    with training(dict(term=linear(0.3))) as whole:
        for task in tasks:
            step(whole, task)
    with training(dict(term=linear(0.3))) as first:
        for task in tasks[:5]:
            step(first, task)
        state = first.state_dict()
    with training(dict(term=linear(0.3))) as second:
        second.load_state_dict(state)
        for task in tasks[5:]:
            step(second, task)
    assert torch.equal(whole.measured["term"].weight, second.measured["term"].weight)


def test_a_share_of_zero_never_runs() -> None:
    with training(dict(term=linear(0.0))) as of:
        assert step(of, torch.ones(2, 2, 4, 4)) == 0 and of.measured == {}


def test_listening_changes_no_gradient() -> None:
    """Of a real term, beside the same parts called without a training."""
    torch.manual_seed(0)
    student, teacher = Student(), Student()
    images = torch.randn(2, 3, 4, 4)
    with distill(student, dict(module=teacher), dict(a=dict(weight=3.0)), images=FORMAT) as of:
        (student(images).square().mean() + of.loss(images)).backward()
        distiller = of._distillation.distillers["a"]
    gradient = student.backbone.weight.grad.clone()
    student.zero_grad()
    feature = student(images)
    (feature.square().mean() + distiller(feature, teacher(images))).backward()
    assert torch.equal(gradient, student.backbone.weight.grad)
