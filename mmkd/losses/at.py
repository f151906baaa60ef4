"""Attention transfer: Zagoruyko & Komodakis, *Paying More Attention to Attention* (ICLR 2017)."""

from __future__ import annotations

from torch import Tensor

from mmkd.losses.base import Loss, Takes
from mmkd.numerics import at_least_float32, check_grids, unit_vectors
from mmkd.registry import MODELS

__all__ = ["ATLoss", "attention_transfer"]


def attention_transfer(student: Tensor, teacher: Tensor, power: float = 2.0) -> Tensor:
    """``mean (q_s - q_t)^2``, ``q = Q / ||Q||_2`` with ``Q = mean_c |x|^p`` over an image's cells.

    The paper's Eq. (2) with the square and the mean over images and locations of the authors'
    program, for which its weight of 1000 holds. The widths may differ.

    Args:
        student: ``[N, C_s, H, W]``.
        teacher: ``[N, C_t, H, W]``.
        power: p, 1 or more.

    Returns:
        A scalar, float32 at least, with finite gradient for features of zeros too.

    Raises:
        ValueError: Grids that differ, are empty or not of rank 4; a power out of range.
    """
    _check(power)
    check_grids(student, teacher)
    ours, theirs = (_attention(x, power) for x in (student, teacher))
    return (ours - theirs).square().mean()


def _attention(x: Tensor, power: float) -> Tensor:
    x = at_least_float32(x).flatten(2)
    # In units of an image's largest entry no power overflows; the result has no unit.
    x = x / x.detach().abs().amax(dim=(1, 2), keepdim=True).clamp_min(1e-30)
    return unit_vectors((x.square() if power == 2 else x.abs().pow(power)).mean(dim=1))


def _check(power: float) -> None:
    if not 1 <= power < float("inf"):
        raise ValueError(f"power must be 1 or more and finite, got {power}")


@MODELS.register_module()
class ATLoss(Loss):
    """:func:`attention_transfer` as a module. The paper's weight is 1000 on each of a ResNet's
    stages.

    Args:
        power: p, 1 or more.

    Shapes: ``[N, C_s, H, W]`` and ``[N, C_t, H, W]`` to a scalar.

    Raises:
        ValueError: A power out of range; grids that differ, are empty or not of rank 4.
    """

    takes = Takes(form="maps", own_widths=True, cells=2)

    def __init__(self, power: float = 2.0) -> None:
        super().__init__()
        _check(power)
        self.power = power

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return attention_transfer(student, teacher, self.power)
