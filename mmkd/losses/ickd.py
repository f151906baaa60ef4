"""Inter-channel correlation: Liu et al., *Exploring Inter-Channel Correlation for
Diversity-preserved Knowledge Distillation* (ICCV 2021)."""

from __future__ import annotations

from torch import Tensor

from mmkd.losses.base import Loss, Takes
from mmkd.numerics import check_maps, inner_products, unit_vectors
from mmkd.registry import MODELS

__all__ = ["ICKDLoss", "inter_channel_correlation"]


def inter_channel_correlation(student: Tensor, teacher: Tensor) -> Tensor:
    """``1 / (N C) sum (G_s - G_t)^2``, G an image's cosines between its channels.

    Eqs. (2) and (3), over the image's cells, with the denominator of the authors' program, to which
    its weight belongs (the paper divides by C^2).

    Args:
        student, teacher: ``[N, C, H, W]``.

    Returns:
        A scalar, float32 at least.

    Raises:
        ValueError: Shapes differ, are empty or not of rank 4.
    """
    check_maps(student, teacher)
    ours, theirs = (_correlations(x) for x in (student, teacher))
    return (ours - theirs).square().sum(dim=2).mean()


def _correlations(x: Tensor) -> Tensor:
    """``[N, C, C]``."""
    x = unit_vectors(x.flatten(2))
    return inner_products(x, x)


@MODELS.register_module()
class ICKDLoss(Loss):
    """:func:`inter_channel_correlation` as a module: ICKD-C. Its weight is 2.5 on CIFAR-100 and
    ImageNet.

    Where the widths differ, the student's map is projected (a 1x1 convolution), as in the paper.

    Shapes: ``[N, C, H, W]`` and ``[N, C, H, W]`` to a scalar.

    Raises:
        ValueError: Shapes differ, are empty or not of rank 4.
    """

    takes = Takes(form="maps")

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return inter_channel_correlation(student, teacher)
