"""Similarities: Tung & Mori, *Similarity-Preserving Knowledge Distillation* (ICCV 2019)."""

from __future__ import annotations

from torch import Tensor

from mmkd.losses.base import Loss, Takes
from mmkd.numerics import check_images, in_its_unit, inner_products, unit_vectors
from mmkd.registry import MODELS

__all__ = ["SPLoss", "similarity_preserving"]


def similarity_preserving(student: Tensor, teacher: Tensor) -> Tensor:
    """``||G_s - G_t||_F^2 / N^2``, G the Gram matrix of the images, its rows of length 1.

    Eqs. (1) to (4).

    Args:
        student: ``[N, D_s]``, an image's entries in a row.
        teacher: ``[N, D_t]``.

    Returns:
        A scalar, float32 at least.

    Raises:
        ValueError: Other ranks, different N, nothing to compare.
    """
    check_images(student, teacher)
    ours, theirs = (_similarities(x) for x in (student, teacher))
    return (ours - theirs).square().mean()


def _similarities(x: Tensor) -> Tensor:
    x = in_its_unit(x)
    return unit_vectors(inner_products(x, x))


@MODELS.register_module()
class SPLoss(Loss):
    """:func:`similarity_preserving` as a module.

    The paper takes the last stage's map, all its entries (``view="flat"``, the default here), and
    the weight 3000.

    Shapes: ``[N, D_s]`` and ``[N, D_t]`` to a scalar. The N images are those of one process.

    Raises:
        ValueError: Other ranks, different N, nothing to compare.
    """

    takes = Takes(form="images", own_widths=True, view="flat")

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return similarity_preserving(student, teacher)
