"""MobileNetV2 for CIFAR (Sandler et al., CVPR 2018)."""

from __future__ import annotations

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmkd.models.cifar_resnet import KAIMING_INIT
from mmkd.registry import MODELS

__all__ = ["CIFARMobileNetV2"]

# Expansion t, channels c, blocks n, stride s of the first: Table 2, but s = 1 for 24 channels.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _conv_bn(
    in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> tuple[nn.Module, nn.Module]:
    convolution = nn.Conv2d(
        in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
    )
    return convolution, nn.BatchNorm2d(out_channels)


class _InvertedResidual(nn.Module):
    """1x1 (t C) - depthwise 3x3 - 1x1 without activation; plus x where the shapes agree.

    The first 1x1 is there for t = 1 too: the published parameter count includes it.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = expansion * in_channels
        self.layers = nn.Sequential(
            *_conv_bn(in_channels, inner),
            nn.ReLU(inplace=True),
            *_conv_bn(inner, inner, kernel=3, stride=stride, groups=inner),
            nn.ReLU(inplace=True),
            *_conv_bn(inner, out_channels),
        )
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


@MODELS.register_module()
class CIFARMobileNetV2(BaseModule):
    """MobileNetV2 as CIFAR-100's distillation benchmarks have it (Tian et al., CRD, ICLR 2020):
    half the width, ReLU for ReLU6, one stride fewer.

    Args:
        width: Multiplier of every width but the last, which stays 1280 up to 1.
        init_cfg: MMEngine's; None for ``KAIMING_INIT``.

    Shapes: ``[N, 3, H, W] -> ([N, 1280, H / 16, W / 16],)``; the last map is not negative.

    Raises:
        ValueError: A width that leaves the narrowest layer without channels.
    """

    def __init__(self, width: float = 0.5, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg=init_cfg if init_cfg is not None else KAIMING_INIT)
        if width < 1 / 16:
            raise ValueError(f"width must be 1/16 or more, 0.5 is the papers', got {width}")
        channels = int(32 * width)
        self.stem = nn.Sequential(*_conv_bn(3, channels, kernel=3, stride=2), nn.ReLU(inplace=True))
        stages = []
        for expansion, base, blocks, stride in _STAGES:
            out_channels = int(base * width)
            stage = [_InvertedResidual(channels, out_channels, stride, expansion)]
            stage += [
                _InvertedResidual(out_channels, out_channels, 1, expansion)
                for _ in range(blocks - 1)
            ]
            channels = out_channels
            stages.append(nn.Sequential(*stage))
        self.stages = nn.Sequential(*stages)
        self.out_channels = max(1280, int(1280 * width))
        self.last = nn.Sequential(*_conv_bn(channels, self.out_channels), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.last(self.stages(self.stem(x))),)
