"""Samples as the measures of this package take them: float64, centred, of one unit."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["as_float64", "centred", "drawn_rows", "standardised"]


def as_float64(x: Tensor) -> Tensor:
    """Without gradient; on the CPU where a device has no such numbers."""
    x = x.detach()
    return (x.cpu() if x.device.type == "mps" else x).double()


def centred(x: Tensor) -> Tensor:
    """Samples ``[M, C]`` less their mean.

    Raises:
        ValueError: Another rank, or fewer than two samples.
    """
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"expected two samples [M, C] or more, got {tuple(x.shape)}")
    x = as_float64(x)
    return x - x.mean(dim=0)


def standardised(x: Tensor) -> Tensor:
    """Samples ``[M, C]`` with mean 0 and variance 1 (that of M, not M - 1) in each channel; 0 in
    one that does not vary.

    Raises:
        ValueError: As :func:`centred`.
    """
    x = centred(x)
    deviation = x.square().mean(dim=0).sqrt()
    return x / deviation.masked_fill(deviation == 0, 1)


def drawn_rows(count: int, most: int) -> Tensor:
    """Which of ``count`` rows to look at where more than ``most`` are too many: always the same
    ones, drawn without touching the global random state. Rows at equal distances would be those of
    some columns of a grid alone.

    Returns:
        Indices from small to large, ``[min(count, most)]``.
    """
    drawn = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return drawn[:most].sort().values
