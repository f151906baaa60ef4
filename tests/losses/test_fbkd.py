"""FBKD's four norms from their formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from mmkd.losses import FBKDLoss


def pair(*shape: int) -> tuple[Tensor, Tensor]:
    student, teacher = torch.randn(
        2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    return student, teacher[:, :2]


def trained(**settings: float) -> FBKDLoss:
    loss = FBKDLoss(3, 2, **settings).double()  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    for parameter in loss.parameters():
        nn.init.normal_(parameter, std=0.4, generator=generator)
    return loss


def masks(x: Tensor) -> Tensor:
    strength = x.abs().mean(1).flatten(1) / 0.5
    powers = strength.exp()
    cells = x.shape[2] * x.shape[3]
    return (cells * powers / powers.sum(1, keepdim=True)).reshape(len(x), 1, *x.shape[2:])


def related(block: nn.Module, x: Tensor) -> Tensor:
    """Every cell with every other one."""
    q, k, v = (
        conv2d(x, layer.weight, layer.bias).flatten(2)
        for layer in (block.query, block.key, block.value)
    )
    weights = torch.einsum("nci,ncj->nij", q, k).softmax(-1)
    found = torch.einsum("nij,ncj->nci", weights, v).reshape(len(x), -1, *x.shape[2:])
    return x + conv2d(found, block.restored.weight, block.restored.bias)


def norms(loss: FBKDLoss, s: Tensor, t: Tensor, where: Tensor) -> list[Tensor]:
    def length(x: Tensor) -> Tensor:
        return x.square().sum().sqrt()

    one = conv2d(s, loss.adapted.weight, loss.adapted.bias)
    pooled = s.mean((2, 3)) @ loss.adapted_channels.weight.T + loss.adapted_channels.bias
    flat = conv2d(s.mean(1, True), loss.adapted_cells.weight, loss.adapted_cells.bias, padding=1)
    other = related(loss.student_context, s)
    context = conv2d(other, loss.adapted_context.weight, loss.adapted_context.bias)
    return [
        length(where.sqrt() * (t - one)),
        length(related(loss.teacher_context, t) - context),
        length(t.mean((2, 3)) - pooled),
        length(t.mean(1, True) - flat),
    ]


def test_by_its_formulas() -> None:
    loss = trained()
    student, teacher = pair(2, 3, 4, 5)
    first, second, third, fourth = norms(
        loss, student, teacher, (masks(student) + masks(teacher)) / 2
    )
    expected = 7e-5 * (first + second) + 4e-3 * (third + fourth)
    assert loss(student, teacher).item() == pytest.approx(expected.item(), rel=1e-10)


def test_the_mask_passes_no_gradient_on() -> None:
    """The gradient is that of the formula with the mask as it is."""
    loss = trained(feature=1.0, attention=0.0)
    student, teacher = pair(2, 3, 4, 5)
    where = (masks(student) + masks(teacher)) / 2

    def fixed(x: Tensor) -> Tensor:
        first, second, *_ = norms(loss, x, teacher, where)
        return first + second

    own = torch.autograd.grad(loss(student.requires_grad_(), teacher), student)[0]
    torch.testing.assert_close(own, torch.autograd.grad(fixed(student), student)[0])
    assert torch.autograd.gradcheck(fixed, student)


def test_value_by_hand() -> None:
    """Adaptations that give zero: norms of the teacher's own map of ones, 2 channels of 4 cells."""
    loss = trained()
    for parameter in loss.parameters():
        nn.init.zeros_(parameter)
    teacher, student = torch.ones(1, 2, 2, 2).double(), torch.zeros(1, 3, 2, 2).double()
    expected = 7e-5 * 2 * 8**0.5 + 4e-3 * (2**0.5 + 2)
    assert loss(student, teacher).item() == pytest.approx(expected)


def test_large_maps_are_compared_with_fewer_cells() -> None:
    loss = FBKDLoss(3, 2, context_cells=2)
    nn.init.ones_(loss.teacher_context.restored.weight)
    teacher = torch.zeros(1, 2, 4, 4)
    teacher[0, :, 1, 1] = 3.0
    pooled = torch.tensor([[3.0, 0.0], [0.0, 0.0]]).expand(1, 2, 2, 2)
    block = loss.teacher_context
    q = block.query(teacher).flatten(2).transpose(1, 2)
    k, v = (layer(pooled).flatten(2).transpose(1, 2) for layer in (block.key, block.value))
    found = ((q @ k.transpose(1, 2)).softmax(2) @ v).transpose(1, 2).reshape(1, -1, 4, 4)
    torch.testing.assert_close(block(teacher), teacher + block.restored(found))


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="feature must be 0 or more and finite, got -1"):
        FBKDLoss(3, 2, feature=-1)
    with pytest.raises(ValueError, match="context_cells must be 1 or more, got 0"):
        FBKDLoss(3, 2, context_cells=0)
