"""Accuracy on a few images, against hand-computed values and a validation."""

from __future__ import annotations

import pytest
import torch

from mmkd.runs.accuracy import Found, average_precision
from mmkd.targets import Boxes

ONE = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
NONE = torch.zeros(0, 4)


def boxes(corners: torch.Tensor, *classes: int) -> Boxes:
    return Boxes(corners, torch.tensor(classes, dtype=torch.long))


def found(corners: torch.Tensor, *classes: int, score: float = 0.9) -> Found:
    return Found(corners, torch.full((len(corners),), score), torch.tensor(classes))


def test_by_hand() -> None:
    objects = [boxes(ONE, 0), boxes(NONE), boxes(ONE, 1)]
    nothing = found(NONE)
    assert average_precision(objects, [found(ONE, 0), nothing, found(ONE, 1)]) == pytest.approx(100)
    assert average_precision(objects, [found(ONE, 0), nothing, nothing]) == pytest.approx(50)
    assert average_precision(objects, [nothing] * 3) == 0
    # Of another class, and with an IoU of 0.8: found up to there, at 7 of 10 thresholds.
    assert average_precision(objects[:1], [found(ONE, 1)]) == 0
    narrow = torch.tensor([[0.0, 0.0, 8.0, 10.0]])
    assert average_precision(objects[:1], [found(narrow, 0)]) == pytest.approx(70)
    assert average_precision([boxes(NONE)], [found(ONE, 0)]) is None
