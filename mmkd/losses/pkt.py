"""Probabilistic transfer: Passalis & Tefas, *Learning Deep Representations with Probabilistic
Knowledge Transfer* (ECCV 2018)."""

from __future__ import annotations

from torch import Tensor

from mmkd.losses.base import Loss, Takes
from mmkd.numerics import check_images, inner_products, unit_vectors
from mmkd.registry import MODELS

__all__ = ["PKTLoss", "probabilistic_transfer"]

# Of the authors' program.
_EPS = 1e-7


def probabilistic_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """``1 / N^2 sum_ij t_ij log(t_ij / s_ij)``, of how probably image i chooses j as its neighbour.

    ``p_ij = k(x_i, x_j) / sum_j k(x_i, x_j)`` with ``k = (1 + cos) / 2``: Eqs. (5), (6) and (10),
    with the authors' program's mean, to which the weight 30,000 of the CRD framework belongs, and
    its 1e-7 added to each probability.

    Args:
        student: ``[N, D_s]``.
        teacher: ``[N, D_t]``.

    Returns:
        A scalar, float32 at least.

    Raises:
        ValueError: Other ranks, different N, nothing to compare.
    """
    check_images(student, teacher)
    ours, theirs = (_neighbours(x) for x in (student, teacher))
    return (theirs * ((theirs + _EPS).log() - (ours + _EPS).log())).mean()


def _neighbours(x: Tensor) -> Tensor:
    x = unit_vectors(x)
    # A cosine rounds to less than -1, and opposite images have no logarithm.
    similarity = ((1 + inner_products(x, x)) / 2).clamp_min(0)
    return similarity / similarity.sum(dim=1, keepdim=True)


@MODELS.register_module()
class PKTLoss(Loss):
    """:func:`probabilistic_transfer` as a module. The CRD framework's weight is 30,000.

    Shapes: ``[N, D_s]`` and ``[N, D_t]`` to a scalar. The N images are those of one process.

    Raises:
        ValueError: Other ranks, different N, nothing to compare.
    """

    takes = Takes(form="images", own_widths=True)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return probabilistic_transfer(student, teacher)
