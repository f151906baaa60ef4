"""The mean squared difference, by which FitNet, SimKD, SRRL and IJCKD match features or logits."""

from __future__ import annotations

from torch import Tensor

from mmkd.losses.base import Loss
from mmkd.numerics import at_least_float32, check_pair
from mmkd.registry import MODELS

__all__ = ["MSELoss", "mse"]


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
class MSELoss(Loss):
    """:func:`mse` as a module.

    Shapes: any two equal ones to a scalar.

    Raises:
        ValueError: Shapes that differ or are empty.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return mse(student, teacher)
