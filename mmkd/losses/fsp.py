"""Flow of solution procedure: Yim et al., *A Gift from Knowledge Distillation* (CVPR 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from mmkd.losses.base import Loss, Takes
from mmkd.numerics import check_maps, inner_products
from mmkd.registry import MODELS

__all__ = ["FSPLoss", "solution_flow"]


def solution_flow(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """``mean (G_s - G_t)^2`` over images and pairs of channels, summed over neighbouring levels.

    ``G = 1 / (H W) sum_hw x_c y_d`` of the channels of one level and the next (Eqs. (1) and (2));
    the finer level is max-pooled to the coarser one's grid, as in the paper.

    Args:
        student, teacher: Maps ``[N, C, H, W]`` of two levels or more.

    Returns:
        A scalar, float32 at least.

    Raises:
        ValueError: One level; shapes that differ, are empty or not of rank 4.
    """
    if len(student) < 2:
        raise ValueError(f"a flow leads from one level to another, got {len(student)} level")
    for pair in zip(student, teacher, strict=True):
        check_maps(*pair)
    distances = [
        (_flow(*ours) - _flow(*theirs)).square().mean()
        for ours, theirs in zip(pairwise(student), pairwise(teacher), strict=True)
    ]
    return sum(distances[1:], distances[0])


def _flow(x: Tensor, y: Tensor) -> Tensor:
    """``[N, C, D]``."""
    grid = min(x.shape[2], y.shape[2]), min(x.shape[3], y.shape[3])
    x, y = (each if each.shape[2:] == grid else adaptive_max_pool2d(each, grid) for each in (x, y))
    return inner_products(x.flatten(2), y.flatten(2)) / (grid[0] * grid[1])


@MODELS.register_module()
class FSPLoss(Loss):
    """:func:`solution_flow` as a module. The CRD framework's weight is 50.

    The paper's student has the teacher's widths; where they differ, each level has a projector.

    Shapes: lists of ``[N, C, H, W]`` to a scalar.

    Raises:
        ValueError: One level; shapes that differ, are empty or not of rank 4.
    """

    takes = Takes(form="maps", several_levels=True, levels=2)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        return solution_flow(student, teacher)
