"""MGD: the teacher's map from a part of the student's cells."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from mmkd.losses import MGDLoss


def generated(loss: MGDLoss, x: Tensor) -> Tensor:
    first, _, second = loss.generation
    hidden = conv2d(x, first.weight, first.bias, padding=1).clamp_min(0)
    return conv2d(hidden, second.weight, second.bias, padding=1)


def pair(*shape: int) -> tuple[Tensor, Tensor]:
    student, teacher = torch.randn(
        2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    return student, teacher


@pytest.mark.parametrize("masked", [0.0, 0.45])
def test_by_its_formula(masked: float) -> None:
    loss, again = (MGDLoss(4, masked, seed=3).double() for _ in range(2))
    student, teacher = pair(3, 4, 6, 5)
    mask = again.draws((3, 1, 6, 5), torch.device("cpu")) >= masked
    expected = (generated(loss, student * mask) - teacher).square().sum().item() / 3
    assert loss(student, teacher).item() == pytest.approx(expected, rel=1e-10)


def test_value_by_hand() -> None:
    """A generation that passes its centre on, so that all of the student's cells that are left
    are compared as they are."""
    loss = MGDLoss(1, 0.0)
    for layer in (loss.generation[0], loss.generation[2]):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        layer.weight.data[0, 0, 1, 1] = 1
    student, teacher = torch.tensor([[1.0, 2], [3, 4]]), torch.tensor([[1.0, 0], [0, 0]])
    assert loss(student[None, None], teacher[None, None]).item() == 4 + 9 + 16
    assert loss(student[None, None], student[None, None]).item() == 0


def test_the_share_of_masked_cells() -> None:
    """In the mean of many draws; the same cells in every channel."""
    loss = MGDLoss(2, 0.65)
    mask = loss.draws((100, 1, 50, 50), torch.device("cpu")) >= loss.masked
    assert 1 - mask.float().mean().item() == pytest.approx(0.65, abs=0.01)


def test_masks_differ_between_iterations_and_resume() -> None:
    student, teacher = pair(2, 4, 6, 6)
    loss, resumed = MGDLoss(4, seed=1).double(), MGDLoss(4, seed=1).double()
    first = loss(student, teacher)
    resumed.load_state_dict(loss.state_dict())
    second = loss(student, teacher)
    assert first != second
    assert torch.equal(resumed(student, teacher), second)


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="masked must be from 0 to less than 1, got 1"):
        MGDLoss(4, 1)
