"""RedNet: ResNet with involutions (Li et al., CVPR 2021, section 4), which MMPretrain 1 lacks."""

from __future__ import annotations

from typing import Any, ClassVar

from mmcv.cnn import ConvModule
from mmpretrain.models.backbones import ResNet
from mmpretrain.models.backbones.resnet import Bottleneck
from torch import nn

from mmkd.models.involution import Involution

__all__ = ["RedNet", "involution_stem"]


def involution_stem(width: int) -> nn.Sequential:
    """RedNet's first layers, ``[N, 3, H, W]`` to ``[N, width, H / 2, W / 2]``."""
    norm = dict(type="BN")
    return nn.Sequential(
        ConvModule(3, width // 2, 3, stride=2, padding=1, norm_cfg=norm),
        Involution(width // 2, kernel_size=3),
        nn.BatchNorm2d(width // 2),
        nn.ReLU(inplace=True),
        ConvModule(width // 2, width, 3, padding=1, norm_cfg=norm),
    )


class _Block(Bottleneck):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conv2 = Involution(self.mid_channels, stride=self.conv2_stride)


class RedNet(ResNet):
    """ResNet whose blocks have a 7x7 involution in the place of their 3x3 convolution, and whose
    stem has one too. The names of its weights are those of the authors' program.

    Args:
        depth: 26, 38, 50, 101 or 152.
        **kwargs: Of MMPretrain's ``ResNet``.

    Shapes: ``[N, 3, H, W]`` to a tuple of maps, the last ``[N, 2048, H / 32, W / 32]``.

    Raises:
        KeyError: Another depth.
    """

    arch_settings: ClassVar[dict[int, tuple[type, tuple[int, ...]]]] = {
        26: (_Block, (1, 2, 4, 1)),
        38: (_Block, (2, 3, 5, 2)),
        50: (_Block, (3, 4, 6, 3)),
        101: (_Block, (3, 4, 23, 3)),
        152: (_Block, (3, 8, 36, 3)),
    }

    def __init__(self, depth: int, **kwargs: Any) -> None:
        super().__init__(depth, **{**kwargs, "deep_stem": True})

    def _make_stem_layer(self, in_channels: int, stem_channels: int) -> None:
        super()._make_stem_layer(in_channels, stem_channels)
        self.stem = involution_stem(stem_channels)
