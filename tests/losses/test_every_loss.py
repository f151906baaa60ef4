"""What holds for every loss that is registered."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from helpers.loss_examples import (
    EXAMPLES,
    Example,
    needs_example,
    registered_losses,
    without_example,
)
from mmkd import losses
from mmkd.losses import Loss, Takes
from mmkd.registry import MODELS, build_part

every_loss = pytest.mark.parametrize("example", EXAMPLES, ids=str)


def test_every_loss_has_an_example() -> None:
    assert without_example(registered_losses()) == []
    assert {type(each.loss) for each in EXAMPLES} == set(registered_losses())
    # Found by the registry, whoever lists them or not.
    assert {"LogSumLoss", "PKDLoss"} <= {each.__name__ for each in registered_losses()}


def test_a_loss_that_needs_an_example_is_refused_without() -> None:
    class Asking(Loss):
        takes = Takes(targets=("labels",))

    class Built(Loss):
        def __init__(self, bank: int) -> None: ...

    class Plain(Loss): ...

    assert without_example([Asking, Built, Plain]) == ["Asking", "Built"]


@pytest.mark.parametrize("targets", ["boxes", ["boxes"], ("box",), True], ids=str)
def test_what_a_loss_reads_is_a_tuple_of_known_names(targets: Any) -> None:
    with pytest.raises(ValueError, match="must be a tuple of labels, boxes, indices, regions, sco"):
        Takes(targets=targets)


def test_a_single_level_is_compared_with_its_own() -> None:
    with pytest.raises(ValueError, match=r"in_pairs=False\) needs several_levels=True"):
        Takes(in_pairs=False)


@pytest.mark.parametrize("example", [e for e in EXAMPLES if not e.holds_back], ids=str)
def test_gradient_is_the_derivative(example: Example) -> None:
    student, teacher = example.pair()
    inputs = (student.requires_grad_(), teacher.requires_grad_())
    assert torch.autograd.gradcheck(example, inputs)


@every_loss
def test_a_step_against_the_gradient_lowers_the_loss(example: Example) -> None:
    student, teacher = example.pair()
    before = example(student.requires_grad_(), teacher)
    (gradient,) = torch.autograd.grad(before, student)
    assert example(student - 1e-3 * gradient, teacher) < before


@every_loss
@given(seed=st.integers(0, 2**16))
def test_order_of_images_does_not_matter(example: Example, seed: int) -> None:
    student, teacher = example.pair(seed)
    order = torch.randperm(len(student), generator=torch.Generator().manual_seed(seed))
    permuted = example(student[order], teacher[order], order)
    torch.testing.assert_close(permuted, example(student, teacher))


@every_loss
@given(seed=st.integers(0, 2**16))
def test_order_of_channels_does_not_matter(example: Example, seed: int) -> None:
    student, teacher = example.pair(seed)
    order = torch.randperm(student.shape[1], generator=torch.Generator().manual_seed(seed))
    permuted, value = example(student[:, order], teacher[:, order]), example(student, teacher)
    if example.mixes_channels:
        assert torch.isfinite(permuted)
        return
    torch.testing.assert_close(permuted, value)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_compared_in_float32(example: Example, dtype: torch.dtype) -> None:
    student, teacher = example.pair(dtype=dtype)
    value = example(student.requires_grad_(), teacher)
    assert value.dtype == torch.float32
    assert torch.equal(value, example(student.float(), teacher.float()))
    value.backward()
    assert student.grad is not None and student.grad.dtype == dtype
    assert example(*example.pair()).dtype == torch.float64


@pytest.mark.parametrize("example", [e for e in EXAMPLES if not e.mixes_channels], ids=str)
def test_autocast_changes_nothing(example: Example) -> None:
    student, teacher = example.pair(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        value = example(student, teacher)
    assert torch.equal(value, example(student, teacher))


@every_loss
def test_the_largest_float16_features(example: Example) -> None:
    student, teacher = (65504 * each.sign() for each in example.pair(dtype=torch.float16))
    if example.is_steep:
        student = student.float()
    value = example(student.requires_grad_(), teacher)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()


@every_loss
@pytest.mark.parametrize("images", [1, None])
@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_equal_features_give_a_finite_value_and_gradient(
    example: Example, images: int | None, fill: float
) -> None:
    student = torch.full(example.shape, fill)[:images].requires_grad_()
    value = example(student, student.detach().clone())
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()


# Whose least value is another, or which have parts of their own on one side.
NOT_ZERO = {
    "CorrelationLogSumLoss", "FBKDLoss", "HardDistillationLoss", "JointClassifierLoss",
    "LogSumLoss", "MGDLoss", "NKDLoss", "ReviewKDLoss",
}  # fmt: skip


@every_loss
def test_equal_sides_give_zero_where_the_definition_does(example: Example) -> None:
    _, teacher = example.pair()
    value = example(teacher.clone(), teacher)
    if type(example.loss).__name__ in NOT_ZERO or example.loss.state_dict():
        assert value != 0
    else:
        assert value.abs() < 1e-6


@every_loss
def test_other_shapes_are_refused(example: Example) -> None:
    student, other = torch.zeros(example.shape), list(example.shape)
    takes = example.loss.takes
    other[0 if takes.form == "images" else -1 if takes.own_widths else 1] += 1
    with pytest.raises(ValueError, match="same shape, got"):
        example(student, torch.zeros(other))
    with pytest.raises(ValueError, match="features are empty"):
        example(student[:0], student[:0])


@every_loss
def test_other_ranks_are_refused_where_the_form_matters(example: Example) -> None:
    refused = {"samples": (2, 3, 4), "logits": (2, 3, 4, 5), "maps": (2, 3), "images": (2, 3, 4)}
    names = {
        "samples": r"samples \[M, C\]",
        "images": r"images \[N, D\]",
        "logits": r"logits \[N, K\]",
        "maps": r"maps \[N, C",
    }
    takes_any = {"LogSumLoss", "MSELoss", "SoftmaxRegressionLoss", "JointClassifierLoss"}
    if type(example.loss).__name__ in takes_any:
        return
    features = torch.zeros(refused[example.loss.takes.form])
    with pytest.raises(ValueError, match=f"expected {names[example.loss.takes.form]}.*, got"):
        example(features, features)


@every_loss
def test_losses_with_parts_of_their_own_draw_them_from_a_generator(example: Example) -> None:
    with_parts = {"FBKDLoss", "FGDLoss", "MGDLoss", "ReviewKDLoss", "VIDLoss"}
    name = type(example.loss).__name__
    assert bool(list(example.loss.parameters())) == (name in with_parts)
    if name not in with_parts:
        assert not example.loss.state_dict()
        return
    widths: Any = [4, 4] if example.loss.takes.several_levels else 4
    inferred = dict(num_channels=widths, student_channels=widths, teacher_channels=widths)

    def build(seed: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return build_part(dict(type=f"mmkd.{name}"), **inferred, generator=generator).state_dict()

    random_state = torch.get_rng_state()
    one, same, other = build(1), build(1), build(2)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, same[key]) for key, value in one.items())
    assert any(not torch.equal(value, other[key]) for key, value in one.items())


@every_loss
def test_losses_travel_to_other_processes(example: Example) -> None:
    copy: Loss = pickle.loads(pickle.dumps(example.loss))
    again = dataclasses.replace(example, loss=copy)
    pair: tuple[Tensor, Tensor] = example.pair()
    assert torch.equal(again(*pair), example(*pair))


@pytest.mark.parametrize("cls", registered_losses(), ids=lambda cls: cls.__name__)
def test_losses_are_built_from_their_config(cls: type[Loss]) -> None:
    assert MODELS.get(f"mmkd.{cls.__name__}") is cls
    assert getattr(losses, cls.__name__) is cls
    if not needs_example(cls):
        assert type(build_part(dict(type=f"mmkd.{cls.__name__}"))) is cls
