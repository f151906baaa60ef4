"""ShuffleNet V2 for CIFAR (Ma et al., ECCV 2018)."""

from __future__ import annotations

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmkd.models.cifar_shufflenet_v1 import shuffle_channels
from mmkd.registry import MODELS

__all__ = ["CIFARShuffleNetV2"]

_STEM = 24
_STAGES = ((116, 4), (232, 8), (464, 4))  # channels and blocks: Table 5, 1x
_LAST = 1024


def _pointwise(in_channels: int, out_channels: int) -> list[nn.Module]:
    convolution = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    return [convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]


def _depthwise(channels: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
    return [convolution, nn.BatchNorm2d(channels)]


class _SplitUnit(nn.Module):
    """Figure 3 (c): the first half of the channels passes, the second takes the branch; shuffle."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            *_pointwise(half, half), *_depthwise(half, stride=1), *_pointwise(half, half)
        )

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, dim=1)
        return shuffle_channels(torch.cat([kept, self.branch(changed)], dim=1), 2)


class _DownUnit(nn.Module):
    """Figure 3 (d): both branches take every channel and halve the map; shuffle."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.shortcut = nn.Sequential(
            *_depthwise(in_channels, stride=2), *_pointwise(in_channels, half)
        )
        self.branch = nn.Sequential(
            *_pointwise(in_channels, half), *_depthwise(half, stride=2), *_pointwise(half, half)
        )

    def forward(self, x: Tensor) -> Tensor:
        return shuffle_channels(torch.cat([self.shortcut(x), self.branch(x)], dim=1), 2)


@MODELS.register_module()
class CIFARShuffleNetV2(BaseModule):
    """ShuffleNet V2 1x, behind a 1x1 stem of 24 channels instead of a 3x3 with stride 2 and
    pooling (Tian et al., CRD, ICLR 2020).

    Args:
        init_cfg: MMEngine's; None for torch's own initial weights, as there.

    Shapes: ``[N, 3, H, W] -> ([N, 1024, H / 8, W / 8],)``; the last map is not negative.
    """

    out_channels = _LAST

    def __init__(self, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.stem = nn.Sequential(*_pointwise(3, _STEM))
        stages = []
        channels = _STEM
        for width, blocks in _STAGES:
            units = [_SplitUnit(width) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(_DownUnit(channels, width), *units))
            channels = width
        self.stages = nn.Sequential(*stages)
        self.last = nn.Sequential(*_pointwise(channels, _LAST))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.last(self.stages(self.stem(x))),)
