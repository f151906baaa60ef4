"""Residual networks of bottlenecks (He et al., 2016, Table 1) with the stem of CIFAR's."""

from __future__ import annotations

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.functional import relu

from mmkd.models.cifar_resnet import KAIMING_INIT
from mmkd.registry import MODELS

__all__ = ["CIFARBottleneckResNet"]

_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_EXPANSION = 4


class _Bottleneck(nn.Module):
    """1x1 - 3x3 - 1x1, BatchNorm after each; the 3x3 has the stride."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = _EXPANSION * width
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            self.shortcut.append(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        inner = relu(self.bn1(self.conv1(x)))
        inner = relu(self.bn2(self.conv2(inner)))
        return relu(self.bn3(self.conv3(inner)) + self.shortcut(x))


@MODELS.register_module()
class CIFARBottleneckResNet(BaseModule):
    """ResNet50 for 32 x 32 images: a 3x3 stem without stride or pooling, four stages of bottlenecks
    whose inner widths are 64, 128, 256 and 512 (Tian et al., CRD, ICLR 2020).

    Args:
        depth: 50, 101 or 152.
        init_cfg: MMEngine's; None for ``KAIMING_INIT``.

    Shapes: ``[N, 3, H, W] -> ([N, 2048, H / 8, W / 8],)``; the last map is not negative.

    Raises:
        ValueError: Another depth.
    """

    def __init__(self, depth: int = 50, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg=init_cfg if init_cfg is not None else KAIMING_INIT)
        if depth not in _BLOCKS:
            raise ValueError(f"depth must be one of {list(_BLOCKS)}, got {depth}")
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        stages = []
        channels = 64
        for index, blocks in enumerate(_BLOCKS[depth]):
            width = 64 * 2**index
            stage = [_Bottleneck(channels, width, stride=2 if index else 1)]
            channels = _EXPANSION * width
            stage += [_Bottleneck(channels, width, stride=1) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(*stage))
        self.stages = nn.Sequential(*stages)
        self.out_channels = channels

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.stages(relu(self.bn1(self.conv1(x)))),)
