"""Whether a layer of a transformer cares where things are, after Miles & Mikolajczyk (AAAI 2024),
Eqs. (13) and (14)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["translational_equivariance"]


@torch.no_grad()
def translational_equivariance(
    layer: Callable[[Tensor], Tensor],
    tokens: Tensor,
    shift: tuple[int, int] = (1, 1),
    extra_tokens: int = 0,
) -> float:
    """``mu_T = mean (phi(T x) - T phi(x))^2``: 0 for a layer that translation passes through.

    T rolls the patches of a square grid, as the paper does; what leaves on one side enters on the
    other. Class and distillation tokens stay out of it, on both sides of the layer. The paper does
    not say by what it divides; here it is the mean over all entries.

    Args:
        layer: ``[N, L, C]`` to ``[N, L, C']``.
        tokens: What it is given, ``[N, extra_tokens + n n, C]``.
        shift: Rows and columns of patches.
        extra_tokens: Leading tokens that stand for no patch.

    Raises:
        ValueError: Patches that form no square grid.
    """
    patches = tokens[:, extra_tokens:]
    side = math.isqrt(patches.shape[1])
    if side * side != patches.shape[1] or not side:
        raise ValueError(
            f"{patches.shape[1]} patches form no square grid: give the number of extra_tokens"
        )

    def moved(x: Tensor) -> Tensor:
        grid = x.unflatten(1, (side, side))
        return grid.roll(shift, dims=(1, 2)).flatten(1, 2)

    difference = layer(moved(patches)) - moved(layer(patches))
    return float(difference.double().square().mean())
