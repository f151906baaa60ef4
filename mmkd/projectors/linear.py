"""The linear projector of Miles & Mikolajczyk (arXiv 2303.11098)."""

from __future__ import annotations

import torch
from torch import Tensor

from mmkd.initial_weights import initialize, linear_layer
from mmkd.numerics import check_positive
from mmkd.projectors.base import Projector, channels_last, restore_channels
from mmkd.registry import MODELS

__all__ = ["LinearProjector"]


@MODELS.register_module()
class LinearProjector(Projector):
    """One linear map, ``s W^T + b``: the projector of Miles & Mikolajczyk, Eq. (1).

    Args:
        in_channels: C_in, the student's channels.
        out_channels: C_out, the teacher's.
        bias: Whether b exists.
        generator: Source of the initial weights.

    Shapes: ``[..., C_in] -> [..., C_out]``; a map has its channels in dimension 1.

    Raises:
        ValueError: A size that is not positive; an input of other channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        bias: bool = True,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, out_channels=out_channels)
        self.linear = linear_layer(in_channels, out_channels, bias)
        initialize(self, generator)

    def forward(self, x: Tensor) -> Tensor:
        samples = channels_last(x, self.linear.in_features)
        return restore_channels(self.linear(samples), x.ndim)
