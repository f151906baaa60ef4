"""The projector ensemble of Chen et al. (NeurIPS 2022)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import gelu, linear, relu

from mmkd.initial_weights import initialize, linear_layer
from mmkd.numerics import check_positive
from mmkd.projectors.base import Projector, channels_last, restore_channels
from mmkd.registry import MODELS

__all__ = ["ProjectorEnsemble"]


_ACTIVATIONS: dict[str | None, Callable[[Tensor], Tensor] | None] = {
    "relu": relu,
    "gelu": gelu,
    None: None,
}


@MODELS.register_module()
class ProjectorEnsemble(Projector):
    """``f(s) = 1/q sum_k g_k(s)``, ``g_k(s) = act(W_k s + b_k)``: Chen et al., Eq. (5).

    Args:
        in_channels: C_in, the student's channels.
        out_channels: C_out, the teacher's.
        num_projectors: q; every member has its own initialisation.
        activation: ``'relu'``, ``'gelu'`` or None.
        generator: Source of the initial weights.

    Shapes: as :class:`LinearProjector`. ``linear.weight`` stacks the members,
    ``[q * C_out, C_in]``, so that one matrix product serves them all.

    Raises:
        ValueError: A size that is not positive, an unknown activation; an input of other
            channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_projectors: int = 3,
        activation: str | None = "relu",
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_positive(
            in_channels=in_channels, out_channels=out_channels, num_projectors=num_projectors
        )
        if activation not in _ACTIVATIONS:
            raise ValueError(f"activation must be one of {list(_ACTIVATIONS)}, got {activation!r}")
        self.num_projectors = num_projectors
        self.activation = activation
        self.linear = linear_layer(in_channels, num_projectors * out_channels)
        initialize(self, generator)

    def forward(self, x: Tensor) -> Tensor:
        samples = channels_last(x, self.linear.in_features)
        act = _ACTIVATIONS[self.activation]
        if act is None:
            # The mean of linear maps is the linear map of their mean.
            weight = self.linear.weight.unflatten(0, (self.num_projectors, -1)).mean(0)
            bias = self.linear.bias.unflatten(0, (self.num_projectors, -1)).mean(0)
            projected = linear(samples, weight, bias)
        else:
            members = act(self.linear(samples)).unflatten(-1, (self.num_projectors, -1))
            projected = members.mean(dim=-2)
        return restore_channels(projected, x.ndim)
