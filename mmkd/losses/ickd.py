"""Inter-channel correlation: Liu et al., *Exploring Inter-Channel Correlation for
Diversity-preserved Knowledge Distillation* (ICCV 2021)."""

from __future__ import annotations

from torch import Tensor

from mmkd.losses.base import Loss, Takes
from mmkd.numerics import check_maps, in_its_unit, inner_products, unit_vectors
from mmkd.registry import MODELS

__all__ = ["ICKDLoss", "inter_channel_correlation"]


def inter_channel_correlation(student: Tensor, teacher: Tensor) -> Tensor:
    """``1 / (N C) sum (G_s - G_t)^2``, G the rows of ``F F^T`` scaled to length 1.

    F are an image's channels, ``[C, H W]``. So in the authors' program for CIFAR-100, to which its
    weight belongs; Eqs. (2) and (3) of the paper have the products themselves, over C^2.

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
    """``[N, C, C]``. The map's unit cancels in the rows."""
    x = in_its_unit(x.flatten(2))
    return unit_vectors(inner_products(x, x))


@MODELS.register_module()
class ICKDLoss(Loss):
    """:func:`inter_channel_correlation` as a module: ICKD-C. Its weight is 2.5 on CIFAR-100.

    The student's map is projected (a 1x1 convolution) where the widths differ, as in the paper; the
    authors' program does so everywhere, with BatchNorm after it:
    ``ConvConnector(layout="1x1", activate_output=False)``.

    Shapes: ``[N, C, H, W]`` and ``[N, C, H, W]`` to a scalar.

    Raises:
        ValueError: Shapes differ, are empty or not of rank 4.
    """

    takes = Takes(form="maps")

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return inter_channel_correlation(student, teacher)
