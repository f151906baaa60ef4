from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mmkd.losses import CorrelationLogSumLoss, LogSumLoss
from mmkd.losses.logsum import correlation_logsum, logsum

ALPHAS = [1, 1.5, 2, 3, 4, 5]


def _in_log_domain(student: Tensor, teacher: Tensor, alpha: float, eps: float) -> float:
    """The same by logarithms of single entries, in float64: nothing can overflow."""
    total = math.log(eps) if eps else -math.inf
    for s, t in zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True):
        if s != t:
            total = np.logaddexp(total, alpha * math.log(abs(s - t)))
    return float(total)


def _matrices(seed: int, m: int, c: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, m, c, generator=generator, dtype=torch.float64)
    return student, teacher


def test_value_by_hand() -> None:
    student, teacher = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, 0.0]])
    assert logsum(student, teacher, alpha=4).item() == pytest.approx(math.log(1 + 16))
    assert logsum(student, teacher, alpha=1).item() == pytest.approx(math.log(3))
    assert logsum(student, student, alpha=4, eps=1e-12).item() == pytest.approx(math.log(1e-12))


@given(
    seed=st.integers(0, 2**16),
    m=st.integers(1, 6),
    c=st.integers(1, 6),
    alpha=st.floats(1, 12),
    exponent=st.floats(-12, 12),
    eps=st.sampled_from([0.0, 1e-12, 1e-3, 10.0]),
)
def test_agrees_with_the_log_domain(
    seed: int, m: int, c: int, alpha: float, exponent: float, eps: float
) -> None:
    student, teacher = (10**exponent * x for x in _matrices(seed, m, c))
    expected = _in_log_domain(student, teacher, alpha, eps)
    assert logsum(student, teacher, alpha, eps).item() == pytest.approx(expected, abs=1e-9)
    student, teacher = student.float(), teacher.float()
    expected = _in_log_domain(student, teacher, alpha, eps)
    assert logsum(student, teacher, alpha, eps).item() == pytest.approx(
        expected, rel=2e-6, abs=1e-5
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("alpha", [*ALPHAS, 16])
def test_the_largest_values_of_either_sign(dtype: torch.dtype, alpha: float) -> None:
    largest = torch.finfo(dtype).max
    teacher = torch.tensor([[largest, -largest, 0, 1], [largest, 1, 0, -largest]], dtype=dtype)
    student = (-teacher).requires_grad_()
    value = logsum(student, teacher, alpha)
    value.backward()
    assert value.item() == pytest.approx(_in_log_domain(student, teacher, alpha, 1e-12), rel=1e-6)
    assert student.grad is not None and torch.isfinite(student.grad).all()
    if dtype == torch.float16:
        # Elsewhere the derivative, about alpha / |s - t|, lies near the type's smallest value.
        assert student.grad[0, 0] < 0 < student.grad[0, 1]


@pytest.mark.parametrize("alpha", ALPHAS)
def test_small_differences_of_huge_values_are_not_lost(alpha: float) -> None:
    student = torch.tensor([[1e30, 1e10, 3.0]], requires_grad=True)
    teacher = torch.tensor([[1e30, 0.0, 3.0]])
    value = logsum(student, teacher, alpha)
    assert value.item() == pytest.approx(alpha * math.log(1e10), rel=1e-6)
    value.backward()
    assert student.grad[0].tolist() == pytest.approx([0, alpha * 1e-10, 0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("eps", [0.0, 1e-12])
def test_equal_features(dtype: torch.dtype, alpha: float, eps: float) -> None:
    student = torch.tensor([[0.5, -3.0, 0.0, 6e4]], dtype=dtype, requires_grad=True)
    value = logsum(student, student.detach().clone(), alpha, eps)
    value.backward()
    assert torch.isfinite(value)
    assert not student.grad.any()
    if eps:
        assert value.item() == pytest.approx(math.log(eps))


@pytest.mark.parametrize("alpha", ALPHAS)
def test_gradient_by_the_formula(alpha: float) -> None:
    student, teacher = _matrices(0, 3, 4)
    logsum(student.requires_grad_(), teacher, alpha, eps=0.1).backward()
    difference = (student - teacher).detach()
    expected = alpha * difference.abs() ** (alpha - 1) * difference.sign()
    torch.testing.assert_close(student.grad, expected / ((difference.abs() ** alpha).sum() + 0.1))


@given(seed=st.integers(0, 2**16), alpha=st.floats(1, 40))
def test_is_a_soft_maximum(seed: int, alpha: float) -> None:
    student, teacher = _matrices(seed, 4, 3)
    largest = (student - teacher).abs().max().log().item()
    value = logsum(student, teacher, alpha, eps=0).item() / alpha
    assert largest - 1e-9 <= value <= largest + math.log(12) / alpha + 1e-9


@given(seed=st.integers(0, 2**16), alpha=st.floats(1, 8), factor=st.floats(0.01, 100))
def test_scale_adds_its_logarithm(seed: int, alpha: float, factor: float) -> None:
    student, teacher = _matrices(seed, 4, 3)
    scaled = logsum(factor * student, factor * teacher, alpha, eps=0)
    expected = logsum(student, teacher, alpha, eps=0) + alpha * math.log(factor)
    torch.testing.assert_close(scaled, expected)


def test_takes_any_rank() -> None:
    student, teacher = _matrices(0, 4, 6)
    expected = logsum(student, teacher)
    shaped = logsum(student.view(2, 2, 3, 2), teacher.view(2, 2, 3, 2))
    assert torch.equal(shaped, expected)


def test_is_symmetric() -> None:
    student, teacher = _matrices(0, 4, 6)
    assert torch.equal(logsum(student, teacher), logsum(teacher, student))


def test_what_is_not_finite_stays_visible() -> None:
    for broken in (math.nan, math.inf):
        student = torch.tensor([[1.0, broken]])
        assert not torch.isfinite(logsum(student, torch.zeros(1, 2)))


# The correlation form


def test_correlation_by_hand() -> None:
    student = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    teacher = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    # The first channel correlates fully, the second inversely: 0 and |-1 - 1|^4.
    assert correlation_logsum(student, teacher, eps=0).item() == pytest.approx(math.log(16))
    assert correlation_logsum(student, student, eps=1e-5).item() == pytest.approx(math.log(1e-5))


@given(
    seed=st.integers(0, 2**16),
    m=st.integers(1, 7),
    c=st.integers(1, 5),
    alpha=st.sampled_from(ALPHAS),
)
def test_correlation_against_loops(seed: int, m: int, c: int, alpha: float) -> None:
    student, teacher = _matrices(seed, m, c)
    total = 1e-5
    for j in range(c):
        correlation = sum(float(student[i, j] * teacher[i, j]) for i in range(m)) / m
        total += abs(correlation - 1) ** alpha
    value = correlation_logsum(student, teacher, alpha, eps=1e-5).item()
    assert value == pytest.approx(math.log(total), abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_correlation_of_large_half_precision_values(dtype: torch.dtype, alpha: float) -> None:
    student = torch.full((2, 3), 6e4, dtype=dtype, requires_grad=True)
    value = correlation_logsum(student, -student.detach(), alpha)
    value.backward()
    correlation = -(student[0, 0].item() ** 2)
    expected = alpha * math.log(1 - correlation) + math.log(3)
    assert value.item() == pytest.approx(expected, rel=1e-6)
    assert torch.isfinite(student.grad).all()


# Both


@pytest.mark.parametrize("loss", [LogSumLoss, CorrelationLogSumLoss])
def test_arguments_out_of_range(loss: type) -> None:
    for alpha in (0.5, -1, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"alpha must be 1 or more and finite, got {alpha}"):
            loss(alpha=alpha)
    for eps in (-1e-9, math.inf, math.nan):
        with pytest.raises(ValueError, match="eps must be 0 or more and finite, got"):
            loss(eps=eps)


def test_the_module_is_the_function() -> None:
    student, teacher = _matrices(0, 4, 6)
    assert torch.equal(LogSumLoss(3, 1e-3)(student, teacher), logsum(student, teacher, 3, 1e-3))
    assert torch.equal(
        CorrelationLogSumLoss(3, 1e-3)(student, teacher),
        correlation_logsum(student, teacher, 3, 1e-3),
    )


def test_defaults() -> None:
    assert (LogSumLoss().alpha, LogSumLoss().eps) == (4.0, 1e-12)
    assert (CorrelationLogSumLoss().alpha, CorrelationLogSumLoss().eps) == (4.0, 1e-5)


@pytest.mark.parametrize("loss", [LogSumLoss, CorrelationLogSumLoss])
def test_sync_needs_a_distributed_run(loss: type) -> None:
    with pytest.raises(RuntimeError, match="sync=True needs an initialised process group"):
        loss(sync=True)(torch.zeros(2, 3), torch.ones(2, 3))
