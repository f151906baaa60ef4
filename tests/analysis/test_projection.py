"""What is measured of projectors, against formulas, loops and hand-computed values."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mmkd.analysis import (
    condition_number,
    correlation,
    effective_rank,
    fixed_point_residual,
    input_output_correlation,
    self_correlation,
    singular_values,
)

seeds = st.integers(0, 2**16)


def drawn(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def rotation(seed: int, size: int) -> Tensor:
    return torch.linalg.qr(drawn(seed, size, size))[0]


@given(seed=seeds)
def test_singular_values_of_a_known_weight(seed: int) -> None:
    known = torch.tensor([5.0, 2.0, 0.5], dtype=torch.float64)
    weight = rotation(seed, 4)[:, :3] @ torch.diag(known) @ rotation(seed + 1, 3)
    values = singular_values(weight.float())
    torch.testing.assert_close(values, known, rtol=1e-5, atol=1e-6)
    assert values.dtype == torch.float64
    torch.testing.assert_close(singular_values(weight[:, :, None, None]), values)
    assert condition_number(values) == pytest.approx(10, rel=1e-4)


def test_kernels_count_with_all_their_entries() -> None:
    kernel = drawn(0, 3, 2, 3, 3)
    torch.testing.assert_close(
        singular_values(kernel).square().sum(), kernel.square().sum(), rtol=1e-9, atol=0
    )
    with pytest.raises(ValueError, match=r"a weight \[C_t, C_s, ...\], got \(4,\)"):
        singular_values(torch.ones(4))


def test_effective_rank_and_condition_by_hand() -> None:
    assert effective_rank(torch.tensor([2.0, 2.0, 2.0, 2.0])) == pytest.approx(4)
    assert effective_rank(torch.tensor([3.0, 0.0])) == pytest.approx(1)
    # Shares 3/4 and 1/4.
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_rank(torch.tensor([6.0, 2.0])) == pytest.approx(math.exp(entropy))
    assert effective_rank(torch.zeros(3)) == 0
    assert condition_number(torch.tensor([3.0, 0.0])) == math.inf


@given(seed=seeds, samples=st.integers(2, 9))
def test_correlation_against_loops(seed: int, samples: int) -> None:
    x, y = drawn(seed, samples, 3), drawn(seed + 1, samples, 2)
    found = correlation(3 * x + 5, -2 * y)
    for i in range(3):
        for j in range(2):
            a, b = x[:, i].tolist(), y[:, j].tolist()
            ma, mb = sum(a) / samples, sum(b) / samples
            top = sum((p - ma) * (q - mb) for p, q in zip(a, b, strict=True))
            bottom = math.sqrt(sum((p - ma) ** 2 for p in a) * sum((q - mb) ** 2 for q in b))
            assert float(found[i, j]) == pytest.approx(-top / bottom, abs=1e-9)


def test_channels_that_do_not_vary_are_correlated_with_nothing() -> None:
    x = torch.stack([torch.full((5,), 7.0), torch.arange(5.0)], dim=1)
    assert correlation(x, x).tolist() == [[0, 0], [0, pytest.approx(1)]]
    with pytest.raises(ValueError, match=r"two samples \[M, C\] or more, got \(1, 2\)"):
        correlation(x[:1], x[:1])
    with pytest.raises(ValueError, match="as many samples on either side, got 5 and 4"):
        correlation(x, x[:4])


def test_what_passes_through_a_projector_by_hand() -> None:
    # Two channels without correlation: all of one of them is in the output, or nothing of any.
    before = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert input_output_correlation(before, before[:, :1]) == pytest.approx(math.sqrt(1 / 2))
    assert input_output_correlation(before, before.prod(dim=1, keepdim=True)) == 0


def test_self_correlation_by_hand() -> None:
    # Three channels: two alike, one without correlation to either.
    one = torch.tensor([1.0, 1.0, -1.0, -1.0])
    x = torch.stack([one, 2 * one + 3, torch.tensor([1.0, -1.0, 1.0, -1.0])], dim=1)
    assert self_correlation(x) == pytest.approx(math.sqrt(2 / 6))
    assert math.isnan(self_correlation(x[:, :1]))
    assert self_correlation(x[:, 1:]) == pytest.approx(0)


@given(seed=seeds)
def test_a_projector_rests_at_least_squares(seed: int) -> None:
    student, teacher = drawn(seed, 12, 3), drawn(seed + 1, 12, 2)
    best = torch.linalg.lstsq(student, teacher).solution.T
    assert fixed_point_residual(student, teacher, best) == pytest.approx(0, abs=1e-9)
    assert fixed_point_residual(student, teacher, torch.zeros(2, 3)) == pytest.approx(1)
    # The gradient of Eq. (1), by autograd, over that at 0.
    weight = drawn(seed + 2, 2, 3).requires_grad_()
    ((student @ weight.T - teacher).square().sum() / 2).backward()
    expected = weight.grad.norm() / (student.T @ teacher).norm()
    assert fixed_point_residual(student, teacher, weight) == pytest.approx(float(expected))


def test_a_projector_of_other_features() -> None:
    with pytest.raises(ValueError, match=r"a projector \[3, 2\] does not lie between .* \[4, 3\]"):
        fixed_point_residual(torch.ones(4, 3), torch.ones(4, 2), torch.ones(3, 2))
