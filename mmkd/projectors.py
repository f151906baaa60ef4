"""Projectors: from the student's space to the teacher's.

A projector takes samples ``[M, C_in]`` (or tokens ``[N, L, C_in]``, or a map
``[N, C_in, H, W]``) and returns the same with C_out channels. Initial weights come from
``generator``, by default one of its own, never from the global random state.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, relu

from mmkd.registry import MODELS

__all__ = [
    "ConvConnector",
    "IdentityProjector",
    "LinearProjector",
    "MLPProjector",
    "ProjectorEnsemble",
]

_ACTIVATIONS: dict[str | None, Callable[[Tensor], Tensor] | None] = {
    "relu": relu,
    "gelu": gelu,
    None: None,
}


def _initialize(layers: nn.Module, generator: torch.Generator | None) -> None:
    """Draws weights and biases from U(-b, b), b = fan_in^(-1/2): torch's own default."""
    generator = generator or torch.Generator().manual_seed(0)
    for layer in layers.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            bound = 1 / math.sqrt(layer.weight[0].numel())
            for parameter in layer.parameters(recurse=False):
                nn.init.uniform_(parameter, -bound, bound, generator=generator)


def _linear(in_channels: int, out_channels: int, bias: bool = True) -> nn.Linear:
    return nn.utils.skip_init(nn.Linear, in_channels, out_channels, bias=bias)


def _check_positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"{name} must be a positive integer, got {size!r}")


def _channel_last(x: Tensor, in_channels: int) -> Tensor:
    if x.ndim == 4:
        x = x.permute(0, 2, 3, 1)
    if x.shape[-1] != in_channels:
        raise ValueError(f"the projector takes {in_channels} channels, got {x.shape[-1]}")
    return x


def _restore(x: Tensor, rank: int) -> Tensor:
    return x.permute(0, 3, 1, 2) if rank == 4 else x


@MODELS.register_module()
class IdentityProjector(nn.Module):
    """The student's side as it is: for logits, and for features in the teacher's space already.

    Args:
        in_channels, out_channels: The student's and the teacher's channels, one number.

    Shapes: any to the same.

    Raises:
        ValueError: The two differ.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        if in_channels != out_channels:
            raise ValueError(
                f"IdentityProjector compares channels one to one, got {in_channels} of the student "
                f"and {out_channels} of the teacher: logits need the same classes on both sides, "
                "features a projector such as mmkd.LinearProjector"
            )

    def forward(self, x: Tensor) -> Tensor:
        return x


@MODELS.register_module()
class LinearProjector(nn.Module):
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
        _check_positive(in_channels=in_channels, out_channels=out_channels)
        self.linear = _linear(in_channels, out_channels, bias)
        _initialize(self, generator)

    def forward(self, x: Tensor) -> Tensor:
        samples = _channel_last(x, self.linear.in_features)
        return _restore(self.linear(samples), x.ndim)


@MODELS.register_module()
class MLPProjector(nn.Module):
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
        _check_positive(
            in_channels=in_channels,
            out_channels=out_channels,
            hidden_channels=hidden_channels,
            num_layers=num_layers,
        )
        widths = [in_channels, *[hidden_channels] * (num_layers - 1), out_channels]
        self.layers = nn.ModuleList(_linear(a, b) for a, b in pairwise(widths))
        self.in_channels = in_channels
        self.activate_output = activate_output
        _initialize(self, generator)

    def forward(self, x: Tensor) -> Tensor:
        samples = _channel_last(x, self.in_channels)
        for index, layer in enumerate(self.layers):
            samples = layer(relu(samples) if index else samples)
        samples = relu(samples) if self.activate_output else samples
        return _restore(samples, x.ndim)


@MODELS.register_module()
class ProjectorEnsemble(nn.Module):
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
        _check_positive(
            in_channels=in_channels, out_channels=out_channels, num_projectors=num_projectors
        )
        if activation not in _ACTIVATIONS:
            raise ValueError(f"activation must be one of {list(_ACTIVATIONS)}, got {activation!r}")
        self.num_projectors = num_projectors
        self.activation = activation
        self.linear = _linear(in_channels, num_projectors * out_channels)
        _initialize(self, generator)

    def forward(self, x: Tensor) -> Tensor:
        samples = _channel_last(x, self.linear.in_features)
        act = _ACTIVATIONS[self.activation]
        if act is None:
            # The mean of linear maps is the linear map of their mean.
            weight = self.linear.weight.unflatten(0, (self.num_projectors, -1)).mean(0)
            bias = self.linear.bias.unflatten(0, (self.num_projectors, -1)).mean(0)
            projected = linear(samples, weight, bias)
        else:
            members = act(self.linear(samples)).unflatten(-1, (self.num_projectors, -1))
            projected = members.mean(dim=-2)
        return _restore(projected, x.ndim)


@MODELS.register_module()
class ConvConnector(nn.Module):
    """Convolutions, each followed by BatchNorm and ReLU: the connector of SimKD and IJCKD.

    Args:
        in_channels: C_in, the student's channels.
        out_channels: C_out, the teacher's.
        layout: ``'1x1'``, ``'1x1-1x1'`` or ``'1x1-3x3-1x1'``.
        factor: The inner width is C_out / factor.
        generator: Source of the initial weights.

    Shapes: ``[N, C_in, H, W] -> [N, C_out, H, W]``; maps only.

    Raises:
        ValueError: An unknown layout, a size that is not positive, a factor that does not
            divide C_out; an input that is no map or has other channels.
    """

    takes_maps = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        layout: str = "1x1-3x3-1x1",
        factor: int = 2,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        _check_positive(in_channels=in_channels, out_channels=out_channels, factor=factor)
        layouts = ("1x1", "1x1-1x1", "1x1-3x3-1x1")
        if layout not in layouts:
            raise ValueError(f"layout must be one of {layouts}, got {layout!r}")
        if out_channels % factor:
            raise ValueError(f"factor {factor} does not divide out_channels {out_channels}")
        kernels = [int(name[0]) for name in layout.split("-")]
        inner = out_channels // factor
        widths = [in_channels, *[inner] * (len(kernels) - 1), out_channels]
        layers: list[nn.Module] = []
        for kernel, a, b in zip(kernels, widths[:-1], widths[1:], strict=True):
            convolution = nn.utils.skip_init(
                nn.Conv2d, a, b, kernel, padding=kernel // 2, bias=False
            )
            layers += [convolution, nn.BatchNorm2d(b), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.in_channels = in_channels
        _initialize(self, generator)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"ConvConnector takes a map [N, {self.in_channels}, H, W], got {tuple(x.shape)}"
                + (": a vector fits mmkd.LinearProjector or MLPProjector" if x.ndim == 2 else "")
            )
        return self.layers(x)
