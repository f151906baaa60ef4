"""ReviewKD: Chen et al., *Distilling Knowledge via Knowledge Review* (CVPR 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from mmkd.batch_norm import BatchNorm
from mmkd.initial_weights import initialize
from mmkd.losses.base import Loss, Takes
from mmkd.losses.mse import mse
from mmkd.numerics import as_weights, at_least_float32, check_grids, check_maps, check_positive
from mmkd.registry import MODELS

__all__ = ["ReviewKDLoss", "hierarchical_context"]

# Sides of the pooled grids.
_POOLED = (4, 2, 1)


def hierarchical_context(student: Tensor, teacher: Tensor) -> Tensor:
    """``(d + 1/2 d_4 + 1/4 d_2 + 1/8 d_1) / (1 + 1/2 + 1/4 + 1/8)``: the paper's HCL.

    d is the mean squared difference, ``d_k`` that of both sides averaged to a grid of ``k x k``.
    Grids that are not smaller than the map's are left out, and those that are left have the factors
    from 1/2 on, as in the authors' program.

    Args:
        student, teacher: ``[N, C, H, W]``.

    Returns:
        A scalar, float32 at least.

    Raises:
        ValueError: Shapes differ, are empty or not of rank 4.
    """
    check_maps(student, teacher)
    student, teacher = at_least_float32(student), at_least_float32(teacher)
    total, factor, factors = mse(student, teacher), 1.0, 1.0
    for side in _POOLED:
        if side < min(student.shape[2:]):
            factor /= 2
            pooled = (adaptive_avg_pool2d(x, side) for x in (student, teacher))
            total = total + factor * mse(*pooled)
            factors += factor
    return total / factors


@MODELS.register_module()
class ReviewKDLoss(Loss):
    """Levels of the student, fused from coarse to fine, against the teacher's.

    The coarsest is brought to the inner width; each finer one is fused with what came before it,
    upsampled to its grid: ``z_1 x + z_2 y`` with two attention maps ``z = sigmoid(1x1([x, y]))``.
    What is fused goes on to the next level, and through a 3x3 convolution to the comparison, which
    is :func:`hierarchical_context`. Convolutions have no bias and are followed by BatchNorm.
    Section 3.3 of the paper, whose weight for detection is 2 on five levels of a pyramid.

    For classifiers the authors' program and DKD's framework have the pooled feature as one more
    level and ``inner = min(512, C)``, C the student's last width; their teacher's maps are those
    before the last ReLU of a stage, where ours are those after it.

    Args:
        student_channels, teacher_channels: Of each level, from fine to coarse.
        inner: Width in which levels are fused.
        pooled: Whether the mean of either side's last level is a coarser one, ``1 x 1``.
        generator: Source of initial weights.

    Shapes: lists of ``[N, C_s, H, W]`` and of ``[N, C_t, H, W]`` to a scalar.

    Raises:
        ValueError: A width that is not positive; grids that differ or are empty.
    """

    takes = Takes(form="maps", several_levels=True, own_widths=True)

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        inner: int = 256,
        pooled: bool = False,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_positive(inner=inner)
        self.pooled = pooled
        pairs = list(zip(student_channels, teacher_channels, strict=True))
        pairs += pairs[-1:] * pooled
        self.fusions = nn.ModuleList(
            _Fusion(ours, theirs, inner, is_first=index == len(pairs) - 1)
            for index, (ours, theirs) in enumerate(pairs)
        )
        initialize(self, generator)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        if self.pooled:
            student, teacher = (
                [*side, at_least_float32(side[-1]).mean(dim=(2, 3), keepdim=True)]
                for side in (student, teacher)
            )
        levels = list(zip(self.fusions, student, teacher, strict=True))
        for _, ours, theirs in levels:
            check_grids(ours, theirs)
        fused: Tensor | None = None
        distances = []
        for fusion, ours, theirs in reversed(levels):
            compared, fused = fusion(as_weights(self, at_least_float32(ours)), fused)
            distances.append(hierarchical_context(compared, theirs))
        return torch.stack(distances).sum()


class _Fusion(nn.Module):
    def __init__(self, ours: int, theirs: int, inner: int, *, is_first: bool) -> None:
        super().__init__()
        self.narrow = _convolution(ours, inner, 1)
        self.widen = _convolution(inner, theirs, 3)
        self.attention = None if is_first else nn.utils.skip_init(nn.Conv2d, 2 * inner, 2, 1)

    def forward(self, x: Tensor, coarser: Tensor | None) -> tuple[Tensor, Tensor]:
        """What is compared, and what the next finer level is fused with."""
        x = self.narrow(x)
        if self.attention is not None:
            assert coarser is not None
            coarser = interpolate(coarser, x.shape[2:], mode="nearest")
            own, other = self.attention(torch.cat([x, coarser], dim=1)).sigmoid().split(1, dim=1)
            x = own * x + other * coarser
        return self.widen(x), x


def _convolution(channels: int, width: int, kernel: int) -> nn.Sequential:
    convolution = nn.utils.skip_init(
        nn.Conv2d, channels, width, kernel, padding=kernel // 2, bias=False
    )
    return nn.Sequential(convolution, BatchNorm(width))
