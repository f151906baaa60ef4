"""Neuron selectivity: Huang & Wang, *Like What You Like: Knowledge Distill via Neuron Selectivity
Transfer* (2017)."""

from __future__ import annotations

from torch import Tensor

from mmkd.losses.base import Loss, Takes
from mmkd.numerics import check_grids, inner_products, unit_vectors
from mmkd.registry import MODELS

__all__ = ["NSTLoss", "neuron_selectivity"]


def neuron_selectivity(student: Tensor, teacher: Tensor) -> Tensor:
    """The squared maximum mean discrepancy of the two sides' channels, mean over images.

    A channel is the pattern of its activations, of length 1; the kernel is polynomial,
    ``k(x, y) = (x . y)^2``: ``mean k(s, s) + mean k(t, t) - 2 mean k(s, t)``, Eqs. (5) and (7) with
    c = 0 and d = 2. The widths may differ.

    Args:
        student: ``[N, C_s, H, W]``.
        teacher: ``[N, C_t, H, W]``.

    Returns:
        A scalar, float32 at least.

    Raises:
        ValueError: Grids that differ, are empty or not of rank 4.
    """
    check_grids(student, teacher)
    ours, theirs = (unit_vectors(x.flatten(2)) for x in (student, teacher))
    return _kernel(ours, ours) + _kernel(theirs, theirs) - 2 * _kernel(ours, theirs)


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """Mean over images and pairs of channels."""
    return inner_products(x, y).square().mean()


@MODELS.register_module()
class NSTLoss(Loss):
    """:func:`neuron_selectivity` as a module. The CRD framework's weight is 50; the paper's
    lambda of 50 stands halved before it.

    Shapes: ``[N, C_s, H, W]`` and ``[N, C_t, H, W]`` to a scalar.

    Raises:
        ValueError: Grids that differ, are empty or not of rank 4.
    """

    takes = Takes(form="maps", own_widths=True)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return neuron_selectivity(student, teacher)
