"""Linear maps with ReLU between them."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from mmkd.initial_weights import initialize, linear_layer
from mmkd.numerics import check_positive
from mmkd.projectors.base import Projector, channels_last, restore_channels
from mmkd.registry import MODELS

__all__ = ["MLPProjector"]


@MODELS.register_module()
class MLPProjector(Projector):
    """Linear maps with ReLU between them (Miles & Mikolajczyk, CIFAR-100 experiments).

    The k-MLP of Chen et al., Figure 4, is ``hidden_channels=None, num_layers=k,
    activate_output=True``: every layer as wide as the teacher, and followed by ReLU.

    Args:
        in_channels: C_in, the student's channels.
        out_channels: C_out, the teacher's.
        hidden_channels: Width of every layer between; None for C_out.
        num_layers: Number of linear maps, 1 or more.
        activate_output: Whether ReLU follows the last one too.
        generator: Source of the initial weights.

    Shapes: as :class:`LinearProjector`.

    Raises:
        ValueError: A size that is not positive; an input of other channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: int | None = 1024,
        num_layers: int = 2,
        activate_output: bool = False,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        hidden_channels = out_channels if hidden_channels is None else hidden_channels
        check_positive(
            in_channels=in_channels,
            out_channels=out_channels,
            hidden_channels=hidden_channels,
            num_layers=num_layers,
        )
        widths = [in_channels, *[hidden_channels] * (num_layers - 1), out_channels]
        self.layers = nn.ModuleList(linear_layer(a, b) for a, b in pairwise(widths))
        self.in_channels = in_channels
        self.activate_output = activate_output
        initialize(self, generator)

    def forward(self, x: Tensor) -> Tensor:
        samples = channels_last(x, self.in_channels)
        for index, layer in enumerate(self.layers):
            samples = layer(relu(samples) if index else samples)
        samples = relu(samples) if self.activate_output else samples
        return restore_channels(samples, x.ndim)
