"""The direction-alignment loss of Chen et al., "Projector Ensemble", Eqs. (1) and (5)."""

from __future__ import annotations

from torch import Tensor

from mmkd.losses.base import Loss
from mmkd.numerics import check_samples, unit_vectors
from mmkd.registry import MODELS

__all__ = ["DirectionAlignmentLoss", "direction_alignment"]


def direction_alignment(student: Tensor, teacher: Tensor) -> Tensor:
    """``1 - 1/M sum_i cos(s_i, t_i)``; a zero vector counts as orthogonal.

    Args:
        student, teacher: Samples ``[M, C]``.

    Returns:
        A scalar in [0, 2], float32 at least, with finite gradient for zero vectors too.

    Raises:
        ValueError: Shapes differ, are empty or not of rank 2.
    """
    check_samples(student, teacher)
    return 1 - (unit_vectors(student) * unit_vectors(teacher)).sum(dim=1).mean()


@MODELS.register_module()
class DirectionAlignmentLoss(Loss):
    """:func:`direction_alignment` as a module.

    Shapes: ``[M, C]`` and ``[M, C]`` to a scalar.

    Raises:
        ValueError: Shapes that differ, are empty or not of rank 2.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return direction_alignment(student, teacher)
