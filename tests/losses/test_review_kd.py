"""ReviewKD's fusion and hierarchical context from their formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, batch_norm, conv2d

from mmkd.losses import ReviewKDLoss
from mmkd.losses.review_kd import hierarchical_context


def maps(channels: int, *grids: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(channels)
    return [torch.randn(2, channels, g, g, generator=generator).double() for g in grids]


def layer(block: torch.nn.Module, x: Tensor, padding: int = 0) -> Tensor:
    convolution, norm = block
    return batch_norm(
        conv2d(x, convolution.weight, padding=padding), None, None, norm.weight, norm.bias, True
    )


def test_hierarchical_context_by_its_formula() -> None:
    [student], [teacher] = maps(3, 8), maps(4, 8)
    teacher = teacher[:, :3]
    means = [
        (avg_pool2d(student, size) - avg_pool2d(teacher, size)).square().mean().item()
        for size in (1, 2, 4, 8)
    ]
    expected = (means[0] + means[1] / 2 + means[2] / 4 + means[3] / 8) / 1.875
    assert hierarchical_context(student, teacher).item() == pytest.approx(expected)
    # On a grid of 2 x 2, only the mean over all is smaller.
    small = [avg_pool2d(each, 4) for each in (student, teacher)]
    whole = small[0].sub(small[1]).square().mean().item()
    expected = (whole + means[3] / 2) / 1.5
    assert hierarchical_context(*small).item() == pytest.approx(expected)


def test_hierarchical_context_by_hand() -> None:
    ones, zeros = torch.ones(1, 2, 8, 8), torch.zeros(1, 2, 8, 8)
    assert hierarchical_context(ones, zeros).item() == pytest.approx(1)
    assert hierarchical_context(ones, ones).item() == 0


def test_fusion_by_its_formula() -> None:
    loss = ReviewKDLoss([2, 3], [4, 5], inner=6).double()
    student = [maps(2, 8)[0], maps(3, 4)[0]]
    teacher = [maps(4, 8)[0], maps(5, 4)[0]]
    fine, coarse = loss.fusions
    y = layer(coarse.narrow, student[1])
    x = layer(fine.narrow, student[0])
    up = y.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    z = conv2d(torch.cat([x, up], 1), fine.attention.weight, fine.attention.bias).sigmoid()
    fused = z[:, :1] * x + z[:, 1:] * up
    expected = hierarchical_context(layer(fine.widen, fused, 1), teacher[0])
    expected = expected + hierarchical_context(layer(coarse.widen, y, 1), teacher[1])
    assert loss(student, teacher).item() == pytest.approx(expected.item(), rel=1e-10)
    assert coarse.attention is None


def test_the_pooled_feature_is_a_coarser_level() -> None:
    loss = ReviewKDLoss([2, 3], [4, 5], inner=6, pooled=True).double()
    levels = ReviewKDLoss([2, 3, 3], [4, 5, 5], inner=6).double()
    levels.load_state_dict(loss.state_dict())
    student = [maps(2, 8)[0], maps(3, 4)[0]]
    teacher = [maps(4, 8)[0], maps(5, 4)[0]]
    expected = levels(*([*side, avg_pool2d(side[-1], 4)] for side in (student, teacher)))
    torch.testing.assert_close(loss(student, teacher), expected)


def test_the_pooled_feature_of_one_image() -> None:
    """Without variance: BatchNorm begins with a mean of 0 and a variance of 1."""
    loss = ReviewKDLoss([2], [4], inner=6, pooled=True).double()
    student, teacher = maps(2, 4)[0][:1].requires_grad_(), maps(4, 4)[0][:1]
    fine, coarse = loss.fusions
    y = conv2d(student.mean(dim=(2, 3), keepdim=True), coarse.narrow[0].weight) / (1 + 1e-5) ** 0.5
    x = layer(fine.narrow, student)
    up = y.expand_as(x)
    z = conv2d(torch.cat([x, up], 1), fine.attention.weight, fine.attention.bias).sigmoid()
    fused = z[:, :1] * x + z[:, 1:] * up
    expected = hierarchical_context(layer(fine.widen, fused, 1), teacher)
    pooled = conv2d(y, coarse.widen[0].weight, padding=1) / (1 + 1e-5) ** 0.5
    expected = expected + (pooled - teacher.mean(dim=(2, 3), keepdim=True)).square().mean()
    value = loss([student], [teacher])
    assert value.item() == pytest.approx(expected.item(), rel=1e-10)
    value.backward()
    assert student.grad is not None and student.grad.any()


def test_every_finer_level_sees_the_coarser_ones() -> None:
    loss = ReviewKDLoss([2, 2, 2], [2, 2, 2], inner=4).double()
    student = [each.requires_grad_() for each in maps(2, 8, 4, 2)]
    teacher = maps(3, 8, 4, 2)
    with torch.no_grad():
        others = [each[:, :2] for each in teacher]
    fine_alone = ReviewKDLoss([2, 2, 2], [2, 2, 2], inner=4).double()
    fine_alone.load_state_dict(loss.state_dict())
    gradients = torch.autograd.grad(loss(student, others), student)
    assert all(each.abs().sum() > 0 for each in gradients)


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="inner must be a positive integer, got 0"):
        ReviewKDLoss([2], [2], inner=0)
