"""Correlation congruence: Peng et al., *Correlation Congruence for Knowledge Distillation* (ICCV
2019)."""

from __future__ import annotations

import math

from torch import Tensor

from mmkd.losses.base import Loss, Takes
from mmkd.numerics import check_images, check_positive, inner_products, unit_vectors
from mmkd.registry import MODELS

__all__ = ["CCLoss", "correlation_congruence"]


def correlation_congruence(
    student: Tensor, teacher: Tensor, gamma: float = 0.4, order: int = 2
) -> Tensor:
    """``1 / N^2 sum_ij (k(s_i, s_j) - k(t_i, t_j))^2`` with a Gaussian kernel.

    ``k(x, y) = sum_(p = 0..P) exp(-2 gamma) (2 gamma)^p / p! (x . y)^p`` of rows of length 1: the
    Taylor series of ``exp(-gamma ||x - y||^2)``, Eqs. (7) to (9) of the paper.

    Args:
        student: ``[N, D_s]``.
        teacher: ``[N, D_t]``.
        gamma: Above 0 and finite.
        order: P, 1 or more.

    Returns:
        A scalar, float32 at least.

    Raises:
        ValueError: Other ranks, different N, nothing to compare; a setting out of range.
    """
    _check(gamma, order)
    check_images(student, teacher)
    ours, theirs = (_kernel(unit_vectors(x), gamma, order) for x in (student, teacher))
    return (ours - theirs).square().mean()


def _kernel(x: Tensor, gamma: float, order: int) -> Tensor:
    cosines = inner_products(x, x)
    # The summand of p = 0 is that of both sides.
    summands = ((2 * gamma) ** p / math.factorial(p) * cosines**p for p in range(1, order + 1))
    return math.exp(-2 * gamma) * sum(summands, cosines.new_zeros(()))


def _check(gamma: float, order: int) -> None:
    if not 0 < gamma < math.inf:
        raise ValueError(f"gamma must be above 0 and finite, got {gamma}")
    check_positive(order=order)


@MODELS.register_module()
class CCLoss(Loss):
    """:func:`correlation_congruence` as a module.

    The defaults are the paper's; Hu's Knowledge-Distillation-Zoo gives it a weight of 100. (The CRD
    framework compares something else by this name: products of consecutive differences, with a
    weight of 0.02.)

    Args:
        gamma: Of the kernel.
        order: Of its series.

    Shapes: ``[N, D_s]`` and ``[N, D_t]`` to a scalar. The N images are those of one process.

    Raises:
        ValueError: A setting out of range; other ranks, different N, nothing to compare.
    """

    takes = Takes(form="images", own_widths=True)

    def __init__(self, gamma: float = 0.4, order: int = 2) -> None:
        super().__init__()
        _check(gamma, order)
        self.gamma, self.order = gamma, order

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return correlation_congruence(student, teacher, self.gamma, self.order)
