"""Samples as the measures of this package take them: float64, centred, of one unit."""

from __future__ import annotations

from torch import Tensor

__all__ = ["as_float64", "centred", "standardised"]


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
