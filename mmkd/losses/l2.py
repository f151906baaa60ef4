"""The squared distance of FitNets (Romero et al., 2015) and of Miles & Mikolajczyk, Eq. (1)."""

from __future__ import annotations

from torch import Tensor

from mmkd.losses.base import Loss
from mmkd.numerics import at_least_float32, check_samples
from mmkd.registry import MODELS

__all__ = ["L2Loss", "l2"]


def l2(student: Tensor, teacher: Tensor) -> Tensor:
    """``1/(2M) sum_i |s_i - t_i|^2``.

    Eq. (1) sums over the batch; here the M samples are averaged, so that a weight means the
    same at any batch and map size. On unit vectors it equals the direction-alignment loss.

    Args:
        student, teacher: Samples ``[M, C]``.

    Returns:
        A scalar, float32 at least.

    Raises:
        ValueError: Shapes differ, are empty or not of rank 2.
    """
    check_samples(student, teacher)
    difference = at_least_float32(student) - at_least_float32(teacher)
    return difference.square().sum(dim=1).mean() / 2


@MODELS.register_module()
class L2Loss(Loss):
    """:func:`l2` as a module.

    Shapes: ``[M, C]`` and ``[M, C]`` to a scalar.

    Raises:
        ValueError: Shapes that differ, are empty or not of rank 2.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return l2(student, teacher)
