"""BatchNorm on batches and on single rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mmkd.batch_norm import BatchNorm


def seeded(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((4, 3), nn.BatchNorm1d), ((1, 3, 2, 2), nn.BatchNorm2d), ((2, 3, 1, 1), nn.BatchNorm2d)],
)
def test_batches_are_pytorch_s(shape: tuple[int, ...], kind: type[nn.Module]) -> None:
    ours, theirs = BatchNorm(3), kind(3)
    theirs.load_state_dict(ours.state_dict())
    for _ in range(2):
        x = seeded(*shape)
        assert torch.equal(ours(x), theirs(x))
        assert all(torch.equal(a, b) for a, b in zip(ours.buffers(), theirs.buffers(), strict=True))
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1)])
def test_a_single_row_is_normalised_as_in_evaluation(shape: tuple[int, ...]) -> None:
    norm = BatchNorm(3)
    norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    norm.running_var.fill_(4.0 - 1e-5)
    x = torch.tensor([3.0, 2.0, 1.0]).reshape(shape).requires_grad_()
    found = norm(x)
    torch.testing.assert_close(found.flatten(), torch.tensor([1.0, 0.0, -1.0]))
    found.sum().backward()
    torch.testing.assert_close(x.grad, torch.full(shape, 0.5))
    assert norm.num_batches_tracked == 0 and norm.running_mean.tolist() == [1, 2, 3]
