from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmkd.losses.direction_alignment import DirectionAlignmentLoss, direction_alignment


def test_value_by_hand() -> None:
    student = torch.tensor([[2.0, 0.0], [1.0, 1.0], [0.0, 3.0], [0.0, 0.0]])
    teacher = torch.tensor([[5.0, 0.0], [0.0, 4.0], [0.0, -1.0], [1.0, 0.0]])
    # Cosines: the same direction, 45 degrees, opposite, and a zero vector.
    expected = 1 - (1 + math.sqrt(0.5) - 1 + 0) / 4
    assert direction_alignment(student, teacher).item() == pytest.approx(expected)


@given(seed=st.integers(0, 2**16), m=st.integers(1, 7), c=st.integers(1, 5))
def test_against_loops(seed: int, m: int, c: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, m, c, generator=generator, dtype=torch.float64)
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        product = sum(a * b for a, b in zip(s, t, strict=True))
        total += product / math.hypot(*s) / math.hypot(*t)
    value = DirectionAlignmentLoss()(student, teacher).item()
    assert value == pytest.approx(1 - total / m)
    assert -1e-12 <= value <= 2 + 1e-12


@given(seed=st.integers(0, 2**16), exponent=st.integers(-30, 30))
def test_lengths_do_not_matter(seed: int, exponent: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, 4, 3, generator=generator)
    lengths = 10.0**exponent * torch.rand(4, 1, generator=generator).add(0.5)
    torch.testing.assert_close(
        direction_alignment(lengths * student, teacher), direction_alignment(student, teacher)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_largest_values(dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    student = torch.tensor([[largest, largest], [0, -largest]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[largest, 0], [0, largest]], dtype=dtype)
    value = direction_alignment(student, teacher)
    value.backward()
    assert value.item() == pytest.approx(1 - (math.sqrt(0.5) - 1) / 2)
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("which", ["student", "teacher", "both"])
def test_zero_vectors(which: str) -> None:
    student, teacher = torch.ones(2, 3), torch.ones(2, 3)
    if which != "teacher":
        student[0] = 0
    if which != "student":
        teacher[0] = 0
    value = direction_alignment(student.requires_grad_(), teacher)
    value.backward()
    assert value.item() == pytest.approx(0.5)
    assert torch.isfinite(student.grad).all()


def test_the_gradient_is_orthogonal_to_the_student() -> None:
    student, teacher = torch.randn(
        2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    direction_alignment(student.requires_grad_(), teacher).backward()
    along = (student.grad * student).sum(dim=1)
    torch.testing.assert_close(along, torch.zeros(4, dtype=torch.float64))
