"""Where on a map, and in which channels, a network's activation is strong."""

from __future__ import annotations

from torch import Tensor

from mmkd.numerics import at_least_float32

__all__ = ["channel_attention", "spatial_attention"]


def spatial_attention(feature: Tensor, temperature: float) -> Tensor:
    """``HW softmax_hw(mean_c |x| / T)``: FGD's Eq. (2) and (4); 1 in the mean over locations.

    Args:
        feature: ``[N, C, H, W]``.
        temperature: T, above 0.

    Returns:
        ``[N, 1, H, W]``, float32 at least.
    """
    strength = at_least_float32(feature).abs().mean(dim=1, keepdim=True)
    weights = (strength.flatten(1) / temperature).softmax(dim=1)
    return (weights * weights.shape[1]).view_as(strength)


def channel_attention(feature: Tensor, temperature: float) -> Tensor:
    """``C softmax_c(mean_hw |x| / T)``: FGD's Eq. (3) and (5); 1 in the mean over channels.

    Args:
        feature: ``[N, C, H, W]``.
        temperature: T, above 0.

    Returns:
        ``[N, C, 1, 1]``, float32 at least.
    """
    strength = at_least_float32(feature).abs().mean(dim=(2, 3), keepdim=True)
    return (strength / temperature).softmax(dim=1) * feature.shape[1]
