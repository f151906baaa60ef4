"""Attention transfer against loops, with widths that differ."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.loss_references import attention_transfer_by_loops
from mmkd.losses import ATLoss


@given(seed=st.integers(0, 2**16), power=st.sampled_from([1.0, 2.0, 3.5]))
def test_against_loops(seed: int, power: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (
        torch.randn(2, channels, 3, 4, generator=generator, dtype=torch.float64)
        for channels in (3, 5)
    )
    expected = attention_transfer_by_loops(student, teacher, power)
    assert ATLoss(power)(student, teacher).item() == pytest.approx(expected, rel=1e-9)


def test_value_by_hand() -> None:
    # Attention (1, 0) against (3, 4) / 5: 0.16 and 0.64 over two cells.
    student = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)
    teacher = torch.tensor([3.0, 4.0]).sqrt().reshape(1, 1, 1, 2)
    assert ATLoss()(student, teacher).item() == pytest.approx(0.4)
    assert ATLoss()(5 * teacher, teacher).item() == pytest.approx(0)


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="power must be 1 or more and finite"):
        ATLoss(0.5)
