"""Wide residual networks for CIFAR (Zagoruyko & Komodakis, BMVC 2016)."""

from __future__ import annotations

from itertools import pairwise

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.functional import relu

from mmkd.models.cifar_resnet import KAIMING_INIT
from mmkd.registry import MODELS

__all__ = ["WideResNet"]


class _PreActivationBlock(nn.Module):
    """``conv(relu(bn(conv(a)))) + shortcut``, with ``a = relu(bn(x))``.

    The shortcut is x itself, or a 1x1 convolution of a where the widths differ.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.shortcut: nn.Conv2d | None = None
        if in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = relu(self.bn1(x))
        inner = self.conv2(relu(self.bn2(self.conv1(activated))))
        return inner + (x if self.shortcut is None else self.shortcut(activated))


@MODELS.register_module()
class WideResNet(BaseModule):
    """WRN-depth-k, without dropout: a stem of 16 channels and three stages of pre-activation blocks
    of 16 k, 32 k and 64 k channels, of which the second and third halve the map.

    Args:
        depth: 6 n + 4, for n blocks a stage.
        widen_factor: k.
        init_cfg: MMEngine's; None for ``KAIMING_INIT``.

    Shapes: ``[N, 3, H, W] -> ([N, 64 k, H / 4, W / 4],)``; taken after the final BatchNorm and
    ReLU, so not negative.

    Raises:
        ValueError: A depth that is not 6 n + 4; a factor below 1.
    """

    def __init__(
        self, depth: int, widen_factor: int, init_cfg: dict | list[dict] | None = None
    ) -> None:
        super().__init__(init_cfg=init_cfg if init_cfg is not None else KAIMING_INIT)
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth must be 6 n + 4 (10, 16, 22, ...), got {depth}")
        if not isinstance(widen_factor, int) or widen_factor < 1:
            raise ValueError(f"widen_factor must be a positive integer, got {widen_factor!r}")
        widths = [16, *(widen_factor * width for width in (16, 32, 64))]
        self.out_channels = widths[-1]
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        stages = []
        for index, (before, width) in enumerate(pairwise(widths)):
            stage = [_PreActivationBlock(before, width, stride=2 if index else 1)]
            stage += [_PreActivationBlock(width, width, stride=1) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(*stage))
        self.stages = nn.Sequential(*stages)
        self.bn = nn.BatchNorm2d(self.out_channels)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (relu(self.bn(self.stages(self.conv1(x)))),)
