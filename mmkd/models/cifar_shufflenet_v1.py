"""ShuffleNet for CIFAR (Zhang et al., CVPR 2018)."""

from __future__ import annotations

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, relu

from mmkd.registry import MODELS

__all__ = ["CIFARShuffleNetV1", "shuffle_channels"]

_GROUPS = 3
_STEM = 24
_STAGES = ((240, 4), (480, 8), (960, 4))  # channels and blocks: Table 1, g = 3


def shuffle_channels(x: Tensor, groups: int) -> Tensor:
    """Channel i of group g, of ``groups``, becomes channel ``i * groups + g`` (section 3.1).

    Shapes: ``[N, C, H, W]`` to the same; ``groups`` divides C.
    """
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


class _ShuffleUnit(nn.Module):
    """Grouped 1x1 - shuffle - depthwise 3x3 - grouped 1x1, Figure 2 (b) and (c).

    With stride 1 x is added. With stride 2 the average-pooled x is concatenated, and the branch
    has only the channels that x leaves. ReLU follows the depthwise convolution too, in which the
    published CIFAR network differs from the paper.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        branch = out_channels - in_channels if stride == 2 else out_channels
        inner = branch // 4
        # The stem's 24 channels are too few to be grouped (section 3.2).
        self.first_groups = 1 if in_channels == _STEM else _GROUPS
        self.conv1 = nn.Conv2d(in_channels, inner, 1, groups=self.first_groups, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, branch, 1, groups=_GROUPS, bias=False)
        self.bn3 = nn.BatchNorm2d(branch)

    def forward(self, x: Tensor) -> Tensor:
        inner = shuffle_channels(relu(self.bn1(self.conv1(x))), self.first_groups)
        inner = relu(self.bn2(self.conv2(inner)))
        branch = self.bn3(self.conv3(inner))
        if self.stride == 2:
            return relu(torch.cat([branch, avg_pool2d(x, 3, stride=2, padding=1)], dim=1))
        return relu(branch + x)


@MODELS.register_module()
class CIFARShuffleNetV1(BaseModule):
    """ShuffleNet 1x with three groups, behind a 1x1 stem of 24 channels instead of a 3x3 with
    stride 2 and pooling (Tian et al., CRD, ICLR 2020).

    Args:
        init_cfg: MMEngine's; None for torch's own initial weights, as there.

    Shapes: ``[N, 3, H, W] -> ([N, 960, H / 8, W / 8],)``; the last map is not negative.
    """

    out_channels = _STAGES[-1][0]

    def __init__(self, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.conv1 = nn.Conv2d(3, _STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM)
        stages = []
        channels = _STEM
        for width, blocks in _STAGES:
            stage = [_ShuffleUnit(channels, width, stride=2)]
            stage += [_ShuffleUnit(width, width, stride=1) for _ in range(blocks - 1)]
            channels = width
            stages.append(nn.Sequential(*stage))
        self.stages = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.stages(relu(self.bn1(self.conv1(x)))),)
