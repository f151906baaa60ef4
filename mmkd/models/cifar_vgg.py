"""VGG with BatchNorm for CIFAR (Simonyan & Zisserman, ICLR 2015, Table 1)."""

from __future__ import annotations

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmkd.models.cifar_resnet import KAIMING_INIT
from mmkd.registry import MODELS

__all__ = ["CIFARVGG"]

_WIDTHS = (64, 128, 256, 512, 512)
_CONVOLUTIONS = {8: 1, 13: 2}  # a stage


@MODELS.register_module()
class CIFARVGG(BaseModule):
    """Five stages of 3x3 convolutions (with bias), each followed by BatchNorm and ReLU; one linear
    classifier instead of VGG's three layers (Tian et al., CRD, ICLR 2020).

    Max pooling stands between the first four stages only, so that a 32 x 32 image ends in 4 x 4.

    Args:
        depth: 8 (one convolution a stage) or 13 (two).
        init_cfg: MMEngine's; None for ``KAIMING_INIT``.

    Shapes: ``[N, 3, H, W] -> ([N, 512, H / 8, W / 8],)``; the last map is not negative.

    Raises:
        ValueError: Another depth.
    """

    def __init__(self, depth: int, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg=init_cfg if init_cfg is not None else KAIMING_INIT)
        if depth not in _CONVOLUTIONS:
            raise ValueError(f"depth must be one of {list(_CONVOLUTIONS)}, got {depth}")
        self.out_channels = _WIDTHS[-1]
        stages = []
        channels = 3
        for index, width in enumerate(_WIDTHS):
            stage: list[nn.Module] = [nn.MaxPool2d(2)] if index in (1, 2, 3) else []
            for _ in range(_CONVOLUTIONS[depth]):
                stage.append(nn.Conv2d(channels, width, 3, padding=1))
                stage += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                channels = width
            stages.append(nn.Sequential(*stage))
        self.stages = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.stages(x),)
