"""Relational distillation: Park et al., *Relational Knowledge Distillation* (CVPR 2019)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from mmkd.losses.base import Loss, Takes
from mmkd.numerics import (
    check_factors,
    check_images,
    in_its_unit,
    inner_products,
    unit_vectors,
)
from mmkd.registry import MODELS

__all__ = ["RKDLoss", "relational_kd"]


def relational_kd(
    student: Tensor, teacher: Tensor, distance: float = 25.0, angle: float = 50.0
) -> Tensor:
    """``distance l_d + angle l_a``: distances of pairs and angles of triples of images.

    l_d is the mean over all ``N^2`` pairs of the Huber distance of ``||x_i - x_j|| / mu``, mu the
    mean of those above 0 (Eqs. (5) and (6)); l_a that over all ``N^3`` triples of the cosine of the
    angle at ``x_i`` (Eqs. (8) and (9)). Denominators and factors are the authors' program's.

    Args:
        student: ``[N, D_s]``.
        teacher: ``[N, D_t]``.
        distance, angle: 0 or more.

    Returns:
        A scalar, float32 at least. Memory grows with ``N^2 D + N^3``.

    Raises:
        ValueError: Other ranks, different N, nothing to compare; a factor out of range.
    """
    check_factors(distance=distance, angle=angle)
    check_images(student, teacher)
    ours, theirs = (in_its_unit(x) for x in (student, teacher))
    by_distance = smooth_l1_loss(_distances(ours), _distances(theirs))
    by_angle = smooth_l1_loss(_angles(ours), _angles(theirs))
    return distance * by_distance + angle * by_angle


def _distances(x: Tensor) -> Tensor:
    """``[N, N]``, in units of their mean."""
    squared = (x[:, None] - x[None]).square().sum(dim=2)
    is_zero = squared == 0
    # The mask keeps the square root away from 0, where its gradient is infinite.
    distances = squared.masked_fill(is_zero, 1).sqrt().masked_fill(is_zero, 0)
    return distances / (distances.sum() / (~is_zero).sum().clamp_min(1)).clamp_min(1e-12)


def _angles(x: Tensor) -> Tensor:
    """``[N, N, N]``: at i, the cosine between the directions to j and k."""
    directions = unit_vectors(x[None] - x[:, None])
    return inner_products(directions, directions)


@MODELS.register_module()
class RKDLoss(Loss):
    """:func:`relational_kd` as a module; the weight of the term is 1.

    Args:
        distance: Factor of the distances; 25 in the authors' program and the CRD framework.
        angle: Factor of the angles; 50 there.

    Shapes: ``[N, D_s]`` and ``[N, D_t]`` to a scalar. The N images are those of one process.

    Raises:
        ValueError: A factor out of range; other ranks, different N, nothing to compare.
    """

    takes = Takes(form="images", own_widths=True)

    def __init__(self, distance: float = 25.0, angle: float = 50.0) -> None:
        super().__init__()
        check_factors(distance=distance, angle=angle)
        self.distance, self.angle = distance, angle

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return relational_kd(student, teacher, self.distance, self.angle)
