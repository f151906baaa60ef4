"""Whether a network cares where things are, after Miles & Mikolajczyk (AAAI 2024), Eqs. (13) and
(14)."""

from __future__ import annotations

import torch
from torch import Tensor

from mmkd.analysis.samples import as_float64

__all__ = ["translational_equivariance"]


@torch.no_grad()
def translational_equivariance(
    output: Tensor, of_moved: Tensor, shift: tuple[int, int], *, relative: bool = False
) -> float:
    """``mu_T = mean (phi(T x) - T phi(x))^2``: 0 of a function that translation passes through.

    T rolls, as the paper does: what leaves on one side enters on the other. The paper does not say
    by what it divides; here it is the mean over all entries. Nor does it say where phi begins: a
    block of self-attention on patches alone, without positions, is 0 whatever its weights, since it
    does not know their order. What can differ is phi from the image on.

    Args:
        output: ``phi(x)``, ``[N, rows, columns, C]``.
        of_moved: ``phi(T x)``, likewise.
        shift: Rows and columns by which T rolls.
        relative: In the place of the mean square, in units of the output's variance (of each
            channel, over images and places), so that networks of other scales can be compared: 2
            where ``phi(T x)`` has nothing to do with ``T phi(x)``; nan of an output that is the
            same everywhere.

    Raises:
        ValueError: Shapes that differ, or are of other dimensions.
    """
    if output.ndim != 4 or output.shape != of_moved.shape:
        raise ValueError(
            "expected two outputs [N, rows, columns, C] of one shape, got "
            f"{tuple(output.shape)} and {tuple(of_moved.shape)}"
        )
    moved = as_float64(output).roll(shift, dims=(1, 2))
    difference = (as_float64(of_moved) - moved).square().mean()
    if not relative:
        return float(difference)
    variance = moved.var(dim=(0, 1, 2), correction=0).mean()
    return float(difference / variance) if variance > 0 else float("nan")
