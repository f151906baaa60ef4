"""Squared distances: of FitNets and of Miles & Mikolajczyk, Eq. (1); and the mean of SimKD."""

from __future__ import annotations

from torch import Tensor, nn

from mmkd.numerics import at_least_float32, check_pair
from mmkd.registry import MODELS

__all__ = ["L2Loss", "MSELoss", "l2", "mse"]


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
    check_pair(student, teacher)
    if student.ndim != 2:
        raise ValueError(f"expected samples [M, C], got {tuple(student.shape)}")
    difference = at_least_float32(student) - at_least_float32(teacher)
    return difference.square().sum(dim=1).mean() / 2


def mse(student: Tensor, teacher: Tensor) -> Tensor:
    """``mean (s - t)^2`` over all entries, as SimKD, SRRL and IJCKD match features and logits.

    Args:
        student, teacher: Of one shape, any rank.

    Returns:
        A scalar, float32 at least.

    Raises:
        ValueError: Shapes differ or are empty.
    """
    check_pair(student, teacher)
    return (at_least_float32(student) - at_least_float32(teacher)).square().mean()


@MODELS.register_module()
class L2Loss(nn.Module):
    """:func:`l2` as a module.

    Shapes: ``[M, C]`` and ``[M, C]`` to a scalar.

    Raises:
        ValueError: Shapes that differ, are empty or not of rank 2.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return l2(student, teacher)


@MODELS.register_module()
class MSELoss(nn.Module):
    """:func:`mse` as a module.

    Shapes: any two equal ones to a scalar.

    Raises:
        ValueError: Shapes that differ or are empty.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return mse(student, teacher)
