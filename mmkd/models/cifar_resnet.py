"""Residual networks for CIFAR (He et al., 2016, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from mmkd.registry import MODELS

__all__ = ["KAIMING_INIT", "CIFARResNet"]

# N(0, 2 / (k^2 C_out)) for convolutions (He et al., ICCV 2015), 1 and 0 for BatchNorm: the initial
# weights of every CIFAR network here.
KAIMING_INIT: list[dict[str, Any]] = [
    dict(type="Kaiming", layer="Conv2d", mode="fan_out", nonlinearity="relu"),
    dict(type="Constant", layer="BatchNorm2d", val=1),
]


class _BasicBlock(nn.Module):
    """``relu(bn(conv(relu(bn(conv(x))))) + shortcut(x))``; where the shapes differ, the shortcut is
    a 1x1 convolution, or every second pixel with channels of zeros on either side."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, shortcut: str = "project"
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Sequential()
        if stride == 1 and in_channels == out_channels:
            return
        if shortcut == "pad":
            self.shortcut.append(_Padded(stride, out_channels - in_channels))
        else:
            self.shortcut.append(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        inner = relu(self.bn1(self.conv1(x)))
        return relu(self.bn2(self.conv2(inner)) + self.shortcut(x))


class _Padded(nn.Module):
    def __init__(self, stride: int, added: int) -> None:
        super().__init__()
        self.stride = stride
        self.added = (added // 2, added - added // 2)

    def forward(self, x: Tensor) -> Tensor:
        return pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *self.added))


@MODELS.register_module()
class CIFARResNet(BaseModule):
    """Three stages of basic blocks, whose first blocks halve the map from the second stage on.

    resnet20, resnet56 and resnet110 have the default widths; resnet8x4 and resnet32x4 are
    ``widths=(32, 64, 128, 256)`` (Tian et al., CRD, ICLR 2020).

    Args:
        depth: 6 n + 2, for n blocks a stage.
        widths: Channels of the stem and of the three stages.
        stem_stride: Of the first convolution; 2 quarters the cost.
        shortcut: Where a block changes the map: ``'project'``, a 1x1 convolution with BatchNorm as
            in the distillation papers' networks (He et al.'s option B), or ``'pad'``, zeros (A).
        init_cfg: MMEngine's; None for ``KAIMING_INIT``.

    Shapes: ``[N, 3, H, W] -> ([N, widths[-1], h, w],)``, ``h = H / (4 * stem_stride)``; the last
    map is not negative.

    Raises:
        ValueError: A depth that is not 6 n + 2, other than four widths, another shortcut.
    """

    def __init__(
        self,
        depth: int,
        widths: Sequence[int] = (16, 16, 32, 64),
        stem_stride: int = 1,
        shortcut: Literal["project", "pad"] = "project",
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg if init_cfg is not None else KAIMING_INIT)
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth must be 6 n + 2 (8, 14, 20, ...), got {depth}")
        if len(widths) != 4:
            raise ValueError(f"widths must be four, the stem's and three stages', got {widths}")
        if shortcut not in ("project", "pad"):
            raise ValueError(f"shortcut must be 'project' or 'pad', got {shortcut!r}")
        self.out_channels = widths[-1]
        self.conv1 = nn.Conv2d(3, widths[0], 3, stem_stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        stages = []
        for index, (before, width) in enumerate(pairwise(widths)):
            first = _BasicBlock(before, width, 2 if index else 1, shortcut)
            rest_of_stage = [_BasicBlock(width, width, 1, shortcut) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(first, *rest_of_stage))
        self.stages = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.stages(relu(self.bn1(self.conv1(x)))),)
