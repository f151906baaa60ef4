from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmkd.losses import DirectionAlignmentLoss
from mmkd.losses.l2 import L2Loss, l2
from mmkd.normalizers import L2Normalizer


def test_value_by_hand() -> None:
    student = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    teacher = torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    assert l2(student, teacher).item() == pytest.approx((5 + 9) / 4)


@given(seed=st.integers(0, 2**16), m=st.integers(1, 7), c=st.integers(1, 5))
def test_against_loops(seed: int, m: int, c: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, m, c, generator=generator, dtype=torch.float64)
    total = sum(float(student[i, j] - teacher[i, j]) ** 2 for i in range(m) for j in range(c))
    assert L2Loss()(student, teacher).item() == pytest.approx(total / (2 * m))


@given(seed=st.integers(0, 2**16), m=st.integers(1, 7), c=st.integers(1, 5))
def test_on_unit_vectors_it_is_direction_alignment(seed: int, m: int, c: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, m, c, generator=generator, dtype=torch.float64)
    normalize = L2Normalizer()
    torch.testing.assert_close(
        l2(normalize(student), normalize(teacher)), DirectionAlignmentLoss()(student, teacher)
    )


def test_copies_of_the_batch_change_nothing() -> None:
    student, teacher = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(l2(student.repeat(4, 1), teacher.repeat(4, 1)), l2(student, teacher))
