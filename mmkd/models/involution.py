"""Involution: Li et al., *Involution: Inverting the Inherence of Convolution for Visual
Recognition* (CVPR 2021)."""

from __future__ import annotations

from mmcv.cnn import ConvModule
from torch import Tensor, nn
from torch.nn.functional import unfold

__all__ = ["Involution"]


class Involution(nn.Module):
    """A filter that is made anew at every location, and shared by channels of a group.

    ``y_ijc = sum_uv H_ijuvg x_(i+u)(j+v)c``, g the group of c, with
    ``H_ij = W_1 relu(BN(W_0 x_ij))`` (Eqs. (4) and (6)); with a stride, of the average over it. The
    names of its parameters are those of the authors' program.

    Args:
        channels: C.
        kernel_size: Of the filter.
        stride: 1, or larger for a smaller map.
        group_channels: Channels of a group.
        reduction: C over the width between W_0 and W_1.

    Shapes: ``[N, C, H, W]`` to ``[N, C, H / stride, W / stride]``.

    Raises:
        ValueError: Groups or a width that do not divide C.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 7,
        stride: int = 1,
        group_channels: int = 16,
        reduction: int = 4,
    ) -> None:
        super().__init__()
        if channels % group_channels or channels % reduction:
            raise ValueError(
                f"channels must be a multiple of {group_channels} and {reduction}, got {channels}"
            )
        self.kernel_size, self.stride = kernel_size, stride
        self.groups = channels // group_channels
        self.conv1 = ConvModule(channels, channels // reduction, 1, norm_cfg=dict(type="BN"))
        self.conv2 = ConvModule(
            channels // reduction, kernel_size**2 * self.groups, 1, norm_cfg=None, act_cfg=None
        )
        self.pool = nn.AvgPool2d(stride, stride, ceil_mode=True) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        filters = self.conv2(self.conv1(self.pool(x)))
        images, _, height, width = filters.shape
        filters = filters.view(images, self.groups, 1, self.kernel_size**2, height, width)
        padding = (self.kernel_size - 1) // 2
        seen = unfold(x, self.kernel_size, padding=padding, stride=self.stride)
        seen = seen.view(images, self.groups, -1, self.kernel_size**2, height, width)
        return (filters * seen).sum(dim=3).view(images, -1, height, width)
