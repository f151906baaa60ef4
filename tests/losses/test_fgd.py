"""FGD against loops over cells, and what its parts promise."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import layer_norm

from helpers.loss_references import fgd_by_loops
from mmkd.losses import FGDLoss
from mmkd.targets import Boxes, Targets

SIZE = (16, 24)
BOXES = [[[0.0, 0, 5, 9], [3, 3, 20, 9]], [[40, 40, 50, 50]], []]


def pair(seed: int = 0, *shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(
        2, *(shape or (3, 4, 4, 6)), generator=generator, dtype=torch.float64
    )
    return student, teacher


def scenes(boxes: list = BOXES, size: tuple[int, int] = SIZE) -> Targets:
    corners = [torch.tensor(each).reshape(-1, 4) for each in boxes]
    return Targets(size, boxes=[Boxes(each, torch.zeros(len(each)).long()) for each in corners])


def only(name: str, factor: float = 1.0) -> FGDLoss:
    factors = dict.fromkeys(("foreground", "background", "attention", "context"), 0.0)
    return FGDLoss(4, **{**factors, name: factor}).double()


@pytest.mark.parametrize("name", ["foreground", "background", "attention"])
@given(seed=st.integers(0, 2**16))
def test_against_loops(name: str, seed: int) -> None:
    student, teacher = pair(seed)
    expected = fgd_by_loops(student, teacher, BOXES, SIZE)[name]
    found = only(name, 2.5)(student, teacher, targets=scenes())
    assert found.item() == pytest.approx(2.5 * expected, rel=1e-6)


def test_values_by_hand() -> None:
    """Of equal strength everywhere the attention is 1; a box on 2 of 4 cells, differences of 1."""
    teacher, student = torch.ones(1, 4, 2, 2), torch.zeros(1, 4, 2, 2)
    targets = scenes([[[0, 0, 2, 1]]], (2, 2))
    found = [
        only(name).float()(student, teacher, targets=targets).item()
        for name in ("foreground", "background", "attention", "context")
    ]
    # 2 cells of 1/2 and 4 channels; likewise outside; all attention is 1; 16 squares of 1.
    assert found == pytest.approx([4, 4, 0, 16])


def test_the_context_by_its_formula() -> None:
    loss = only("context")
    for parameter in loss.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    student, teacher = pair()

    def context(block: torch.nn.Module, x: Tensor) -> Tensor:
        cells = x.flatten(2)
        weights = torch.einsum("c,nck->nk", block.pooling.weight[0], cells).softmax(1)
        pooled = torch.einsum("nk,nck->nc", weights, cells)
        hidden = pooled @ block.squeeze.weight.T + block.squeeze.bias
        normed = layer_norm(hidden, (2,), block.norm.weight, block.norm.bias)
        added = normed.clamp_min(0) @ block.expand.weight.T + block.expand.bias
        return x + added[:, :, None, None]

    expected = context(loss.student_context, student) - context(loss.teacher_context, teacher)
    found = loss(student, teacher, targets=scenes())
    assert found.item() == pytest.approx(expected.square().sum().item() / 3, rel=1e-6)


def test_equal_sides_give_zero() -> None:
    _, teacher = pair()
    assert FGDLoss(4).double()(teacher, teacher.clone(), targets=scenes()).item() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_no_boxes_and_one_cell(dtype: torch.dtype) -> None:
    student, teacher = (x.to(dtype) for x in pair(0, 1, 4, 1, 1))
    value = FGDLoss(4)(student.requires_grad_(), teacher, targets=scenes([[]]))
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(student.grad).all()


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="foreground must be 0 or more and finite, got -1"):
        FGDLoss(4, foreground=-1)
    with pytest.raises(ValueError, match="needs 2 channels or more, got 1"):
        FGDLoss(1)
    with pytest.raises(ValueError, match="asks for boxes"):
        FGDLoss(4).double()(*pair(), targets=Targets(SIZE))
