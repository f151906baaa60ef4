"""Initial weights of what is trained beside a student: never drawn from the global random state."""

from __future__ import annotations

import math

import torch
from torch import nn

__all__ = ["initialize", "linear_layer"]


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
