from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmkd.losses import DirectionAlignmentLoss, L2Loss, MSELoss
from mmkd.losses.l2 import l2
from mmkd.losses.mse import mse
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


# Over all entries


def test_mse_by_hand() -> None:
    student = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    teacher = torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    assert mse(student, teacher).item() == pytest.approx((1 + 4 + 9 + 0) / 4)


@given(seed=st.integers(0, 2**16), m=st.integers(1, 7), c=st.integers(1, 5))
def test_mse_is_l2_over_half_the_channels(seed: int, m: int, c: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, m, c, generator=generator, dtype=torch.float64)
    total = sum(float(student[i, j] - teacher[i, j]) ** 2 for i in range(m) for j in range(c))
    assert MSELoss()(student, teacher).item() == pytest.approx(total / (m * c))
    torch.testing.assert_close(mse(student, teacher), 2 / c * l2(student, teacher))


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (2, 3, 4, 5)])
def test_mse_takes_any_rank(shape: tuple[int, ...]) -> None:
    student, teacher = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    flat = mse(student.flatten(), teacher.flatten())
    torch.testing.assert_close(mse(student, teacher), flat)


def test_mse_gradient_by_the_formula() -> None:
    student, teacher = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    mse(student.requires_grad_(), teacher).backward()
    torch.testing.assert_close(student.grad, 2 * (student.detach() - teacher) / 15)


def test_mse_of_the_largest_float16_values() -> None:
    student = torch.full((2, 3), 65504.0, dtype=torch.float16, requires_grad=True)
    value = mse(student, -student.detach())
    value.backward()
    assert value.item() == pytest.approx((2 * 65504.0) ** 2)
    torch.testing.assert_close(
        student.grad.float(), torch.full((2, 3), 4 * 65504 / 6), rtol=1e-3, atol=0
    )
