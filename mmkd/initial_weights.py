"""Initial weights of what is trained beside a student: never drawn from the global random state."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
from torch import nn

__all__ = ["Initial", "initialize", "linear_layer"]

Initial: TypeAlias = Literal["uniform", "he"]


def initialize(
    layers: nn.Module, generator: torch.Generator | None, initial: Initial = "uniform"
) -> None:
    """Draws the weights of linear layers and convolutions.

    Args:
        layers: Them, at any depth.
        generator: None for a seed of 0.
        initial: ``'uniform'``: weights and biases of U(-b, b), b = fan_in^(-1/2), torch's own
            default; ``'he'``: weights of N(0, 2 / fan_out), no biases (He et al., ICCV 2015).
    """
    generator = generator or torch.Generator().manual_seed(0)
    for layer in layers.modules():
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            continue
        if initial == "he":
            deviation = math.sqrt(2 / layer.weight[:, 0].numel())
            nn.init.normal_(layer.weight, std=deviation, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
            continue
        bound = 1 / math.sqrt(layer.weight[0].numel())
        for parameter in layer.parameters(recurse=False):
            nn.init.uniform_(parameter, -bound, bound, generator=generator)


def linear_layer(in_channels: int, out_channels: int, bias: bool = True) -> nn.Linear:
    """A linear layer without initial weights, which draws nothing."""
    return nn.utils.skip_init(nn.Linear, in_channels, out_channels, bias=bias)
