"""Convolutional connectors: those of SimKD and IJCKD, and others that detectors' methods use."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor, nn

from mmkd.batch_norm import BatchNorm
from mmkd.initial_weights import Initial, initialize
from mmkd.numerics import check_positive
from mmkd.projectors.base import Projector
from mmkd.registry import MODELS

__all__ = ["ConvConnector"]


@MODELS.register_module()
class ConvConnector(Projector):
    """Convolutions, each followed by BatchNorm and ReLU: the connector of SimKD and IJCKD.

    FGFI's adaptation is ``layout="3x3", norm=False``, ICKD's ``layout="1x1",
    activate_output=False``.

    Args:
        in_channels: C_in, the student's channels.
        out_channels: C_out, the teacher's.
        layout: ``'1x1'``, ``'3x3'``, ``'1x1-1x1'`` or ``'1x1-3x3-1x1'``.
        factor: The inner width is C_out / factor.
        norm: Whether there is BatchNorm; else the convolutions have biases.
        initial: Of the weights: ``'uniform'``, or ``'he'``, SRRL's.
        activate_output: Whether ReLU follows the last one too.
        generator: Source of the initial weights.

    Shapes: ``[N, C_in, H, W] -> [N, C_out, H, W]``; maps only.

    Raises:
        ValueError: An unknown layout or initial, a size that is not positive, a factor that does
            not divide C_out; an input that is no map or has other channels.
    """

    takes_maps = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        layout: str = "1x1-3x3-1x1",
        factor: int = 2,
        norm: bool = True,
        initial: Initial = "uniform",
        activate_output: bool = True,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, out_channels=out_channels, factor=factor)
        layouts = ("1x1", "3x3", "1x1-1x1", "1x1-3x3-1x1")
        if layout not in layouts:
            raise ValueError(f"layout must be one of {layouts}, got {layout!r}")
        if initial not in get_args(Initial):
            raise ValueError(f"initial must be one of {get_args(Initial)}, got {initial!r}")
        if out_channels % factor:
            raise ValueError(f"factor {factor} does not divide out_channels {out_channels}")
        kernels = [int(name[0]) for name in layout.split("-")]
        inner = out_channels // factor
        widths = [in_channels, *[inner] * (len(kernels) - 1), out_channels]
        layers: list[nn.Module] = []
        for kernel, a, b in zip(kernels, widths[:-1], widths[1:], strict=True):
            convolution = nn.utils.skip_init(
                nn.Conv2d, a, b, kernel, padding=kernel // 2, bias=not norm
            )
            layers += [convolution, *[BatchNorm(b)] * norm, nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*(layers if activate_output else layers[:-1]))
        self.in_channels = in_channels
        initialize(self, generator, initial)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"ConvConnector takes a map [N, {self.in_channels}, H, W], got {tuple(x.shape)}"
                + (": a vector fits mmkd.LinearProjector or MLPProjector" if x.ndim == 2 else "")
            )
        return self.layers(x)
