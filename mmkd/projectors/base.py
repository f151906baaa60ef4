"""What projectors share: their interface, initial weights, and where a feature's channels lie."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

__all__ = [
    "Projector",
    "channels_last",
    "check_positive",
    "initialize",
    "linear_layer",
    "restore_channels",
]


class Projector(nn.Module):
    """From the student's space to the teacher's: samples ``[M, C_in]``, tokens ``[N, L, C_in]`` or
    a map ``[N, C_in, H, W]`` to the same with C_out channels.

    It takes ``(in_channels, out_channels, ..., *, generator=None)`` and draws its initial weights
    from ``generator``, by default one of its own, never from the global random state.

    Attributes:
        takes_maps: Whether it needs the student's map as it is, since it looks at neighbours.
    """

    takes_maps: ClassVar[bool] = False


def initialize(layers: nn.Module, generator: torch.Generator | None) -> None:
    """Draws weights and biases from U(-b, b), b = fan_in^(-1/2): torch's own default."""
    generator = generator or torch.Generator().manual_seed(0)
    for layer in layers.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            bound = 1 / math.sqrt(layer.weight[0].numel())
            for parameter in layer.parameters(recurse=False):
                nn.init.uniform_(parameter, -bound, bound, generator=generator)


def linear_layer(in_channels: int, out_channels: int, bias: bool = True) -> nn.Linear:
    """A linear layer without initial weights, which draws nothing."""
    return nn.utils.skip_init(nn.Linear, in_channels, out_channels, bias=bias)


def check_positive(**sizes: int) -> None:
    """Raises ValueError for a size that is no positive integer, naming it."""
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"{name} must be a positive integer, got {size!r}")


def channels_last(x: Tensor, in_channels: int) -> Tensor:
    """``x`` with its channels in the last dimension; a map has them in dimension 1.

    Raises:
        ValueError: They are not ``in_channels``.
    """
    if x.ndim == 4:
        x = x.permute(0, 2, 3, 1)
    if x.shape[-1] != in_channels:
        raise ValueError(f"the projector takes {in_channels} channels, got {x.shape[-1]}")
    return x


def restore_channels(x: Tensor, rank: int) -> Tensor:
    """Puts the channels back where a feature of this rank has them."""
    return x.permute(0, 3, 1, 2) if rank == 4 else x
