"""What holds for every distance between samples [M, C]."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mmkd.losses import (
    CorrelationLogSumLoss,
    DirectionAlignmentLoss,
    HardDistillationLoss,
    KDLoss,
    L2Loss,
    LogSumLoss,
    MSELoss,
)
from mmkd.registry import build_part

LOSSES = [
    LogSumLoss(),
    LogSumLoss(alpha=1.5),
    LogSumLoss(alpha=2),
    CorrelationLogSumLoss(),
    CorrelationLogSumLoss(alpha=3),
    DirectionAlignmentLoss(),
    L2Loss(),
    MSELoss(),
    KDLoss(),
    KDLoss(temperature=1),
    HardDistillationLoss(),
]
every_loss = pytest.mark.parametrize(
    "loss",
    LOSSES,
    ids=lambda loss: (
        f"{type(loss).__name__}-{getattr(loss, 'alpha', getattr(loss, 'temperature', ''))}"
    ),
)


def _pair(
    m: int = 6, c: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(m, c, generator=generator, dtype=torch.float64).to(dtype) for _ in "st"]


@every_loss
def test_gradient_is_the_derivative(loss: nn.Module) -> None:
    student, teacher = _pair()
    inputs = (student.requires_grad_(), teacher.requires_grad_())
    assert torch.autograd.gradcheck(loss, inputs)


@every_loss
def test_a_step_against_the_gradient_lowers_the_loss(loss: nn.Module) -> None:
    student, teacher = _pair()
    before = loss(student.requires_grad_(), teacher)
    (gradient,) = torch.autograd.grad(before, student)
    assert loss(student - 1e-3 * gradient, teacher) < before


@every_loss
@given(m=st.integers(1, 9), c=st.integers(1, 9), seed=st.integers(0, 2**16))
def test_order_of_samples_and_channels_does_not_matter(
    loss: nn.Module, m: int, c: int, seed: int
) -> None:
    student, teacher = _pair(m, c, seed)
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.randperm(m, generator=generator), torch.randperm(c, generator=generator)
    permuted = loss(student[rows][:, columns], teacher[rows][:, columns])
    torch.testing.assert_close(permuted, loss(student, teacher))


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_compared_in_float32(loss: nn.Module, dtype: torch.dtype) -> None:
    student, teacher = _pair(dtype=dtype)
    value = loss(student.requires_grad_(), teacher)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(student.float(), teacher.float()))
    value.backward()
    assert student.grad is not None and student.grad.dtype == dtype
    assert loss(*_pair()).dtype == torch.float64


@every_loss
def test_autocast_changes_nothing(loss: nn.Module) -> None:
    student, teacher = _pair(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(student, teacher)
    assert torch.equal(value, loss(student, teacher))


@every_loss
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (6, 1)])
@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_equal_features_give_a_finite_value_and_gradient(
    loss: nn.Module, shape: tuple[int, int], fill: float
) -> None:
    student = torch.full(shape, fill, requires_grad=True)
    value = loss(student, torch.full(shape, fill))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()


@every_loss
def test_other_shapes_are_refused(loss: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"same shape, got \(2, 3\) and \(2, 4\)"):
        loss(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"features are empty, \(0, 3\)"):
        loss(torch.zeros(0, 3), torch.zeros(0, 3))


@pytest.mark.parametrize("loss", [CorrelationLogSumLoss(), DirectionAlignmentLoss(), L2Loss()])
def test_other_ranks_are_refused(loss: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"expected samples \[M, C\], got \(2, 3, 4\)"):
        loss(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4))


@every_loss
def test_losses_have_neither_parameters_nor_state(loss: nn.Module) -> None:
    assert not loss.state_dict()
    assert not list(loss.parameters())


@pytest.mark.parametrize("cls", dict.fromkeys(map(type, LOSSES)))
def test_losses_are_built_from_their_config(cls: type[nn.Module]) -> None:
    assert type(build_part(dict(type=f"mmkd.{cls.__name__}"))) is cls
