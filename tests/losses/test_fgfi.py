"""FGFI's mean over the cells near objects."""

from __future__ import annotations

import pytest
import torch

from mmkd.box_masks import cells_near_anchors
from mmkd.losses import FGFILoss
from mmkd.targets import Boxes, Targets

SIZE = (24, 32)
CORNERS = [torch.tensor([[4.0, 0, 12, 8]]), torch.tensor([[9.0, 9, 30, 22]]), torch.zeros(0, 4)]


def scenes(corners: list = CORNERS) -> Targets:
    return Targets(SIZE, boxes=[Boxes(each, torch.zeros(len(each)).long()) for each in corners])


def test_against_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 3, 5, 3, 4, generator=generator, dtype=torch.float64)
    near = cells_near_anchors(CORNERS, (3, 4), SIZE, scales=(1, 2), ratios=(1, 3), threshold=0.4)
    total = sum(
        float((student - teacher)[i, :, y, x].square().sum()) for i, y, x in near.nonzero().tolist()
    )
    found = FGFILoss((1, 2), (1, 3), 0.4)(student, teacher, targets=scenes())
    assert found.item() == pytest.approx(total / (2 * int(near.sum())), rel=1e-12)


def test_value_by_hand() -> None:
    # Two cells are near the box; of five channels with differences of 2, half of 20.
    student, teacher = torch.zeros(1, 5, 3, 4), torch.full((1, 5, 3, 4), 2.0)
    loss = FGFILoss(scales=(1,), ratios=(1,))
    assert loss(student, teacher, targets=scenes(CORNERS[:1])).item() == pytest.approx(10)
    assert loss(teacher, teacher, targets=scenes(CORNERS[:1])).item() == 0


def test_without_boxes_nothing_is_compared() -> None:
    student = torch.zeros(1, 5, 3, 4, requires_grad=True)
    value = FGFILoss()(student, torch.ones(1, 5, 3, 4), targets=scenes(CORNERS[2:]))
    value.backward()
    assert value == 0 and student.grad.abs().sum() == 0


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="threshold must be from 0 to less than 1, got 1"):
        FGFILoss(threshold=1)
    with pytest.raises(ValueError, match="ratios must hold numbers above 0"):
        FGFILoss(ratios=())
