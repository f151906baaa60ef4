"""PKD against loops, Pearson's correlation, and what its authors' formula promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from helpers.loss_references import pkd_by_loops
from mmkd.losses import PKDLoss
from mmkd.losses.pkd import pkd

seeds = st.integers(0, 2**16)
sizes = st.integers(1, 4)


def maps(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return student, teacher


@given(seed=seeds, n=sizes, c=sizes, h=st.integers(2, 4), w=sizes, eps=st.sampled_from([1e-6, 0.3]))
def test_against_loops(seed: int, n: int, c: int, h: int, w: int, eps: float) -> None:
    student, teacher = maps(n, c, h, w, seed=seed)
    expected = pkd_by_loops(student, teacher, eps)
    assert PKDLoss(eps)(student, teacher).item() == pytest.approx(expected, rel=1e-10)


def test_value_by_hand() -> None:
    # Standardised, the student is -1, 1 and the teacher 1, -1: half the mean of 4 and 4.
    student = torch.tensor([0.0, 2.0]).reshape(1, 1, 1, 2)
    teacher = torch.tensor([7.0, 3.0]).reshape(1, 1, 1, 2)
    assert pkd(student, teacher).item() == pytest.approx(2.0, abs=1e-5)
    assert pkd(student, -teacher).item() == pytest.approx(0.0, abs=1e-5)


@given(seed=seeds)
def test_it_is_1_less_pearson_s_correlation(seed: int) -> None:
    student, teacher = maps(2, 3, 4, 3, seed=seed)
    flat = [side.transpose(0, 1).reshape(3, -1).numpy() for side in (student, teacher)]
    correlations = [np.corrcoef(a, b)[0, 1] for a, b in zip(*flat, strict=True)]
    assert pkd(student, teacher, 1e-12).item() == pytest.approx(1 - np.mean(correlations))


@given(seed=seeds, scale=st.floats(0.1, 50), shift=st.floats(-20, 20))
def test_scale_and_offset_of_a_channel_do_not_matter(seed: int, scale: float, shift: float) -> None:
    student, teacher = maps(2, 3, 4, 3, seed=seed)
    changed = student.clone()
    changed[:, 1] = scale * changed[:, 1] + shift
    torch.testing.assert_close(
        pkd(changed, teacher, 1e-9), pkd(student, teacher, 1e-9), rtol=1e-5, atol=1e-7
    )


def test_a_constant_channel_has_a_finite_gradient() -> None:
    student, teacher = maps(2, 3, 2, 2)
    student[:, 1] = 5.0
    pkd(student.requires_grad_(), teacher).backward()
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_largest_values(dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    student = (largest * maps(2, 3, 2, 2)[0].sign()).to(dtype).requires_grad_()
    value = pkd(student, maps(2, 3, 2, 2, seed=1)[1].to(dtype))
    value.backward()
    assert torch.isfinite(value) and 0 < value < 2
    assert torch.isfinite(student.grad).all()
    # In other units it is the same distance.
    small, teacher = (each.detach().double() for each in (student / largest, student))
    torch.testing.assert_close(pkd(small, teacher), torch.zeros(()).double(), atol=1e-5, rtol=0)


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="eps must be above 0, got 0"):
        PKDLoss(eps=0)
    with pytest.raises(ValueError, match="needs 2 locations or more, got 1"):
        pkd(torch.zeros(1, 3, 1, 1), torch.zeros(1, 3, 1, 1))
