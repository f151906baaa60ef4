"""Normalizers: both sides of a distance on one scale."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, group_norm, layer_norm

from mmkd.distributed import all_reduce_sum, is_synchronized
from mmkd.numerics import at_least_float32, unit_vectors
from mmkd.registry import MODELS

__all__ = [
    "BatchNormalizer",
    "GroupNormalizer",
    "IdentityNormalizer",
    "L2Normalizer",
    "LayerNormalizer",
    "Normalizer",
]


class Normalizer(nn.Module):
    """Samples ``[M, C]`` of either side to the same shape, in float32 at least.

    None has parameters. One module serves student and teacher: no state passes between them.

    Attributes:
        takes_maps: Whether it takes maps ``[N, C, H, W]`` as well; others are given their locations
            as samples.
    """

    takes_maps: ClassVar[bool] = False


def _samples(x: Tensor, num_channels: int | None = None) -> Tensor:
    if x.ndim != 2 or (num_channels is not None and x.shape[1] != num_channels):
        expected = "C" if num_channels is None else num_channels
        raise ValueError(f"a normalizer takes samples [M, {expected}], got {tuple(x.shape)}")
    return at_least_float32(x)


@MODELS.register_module()
class BatchNormalizer(Normalizer):
    """``(x - mean) / sqrt(var + eps)`` per channel over the batch, without affine parameters.

    Mean and (biased) variance are always the batch's own: the scale of Miles & Mikolajczyk,
    "Implementation details", which takes eps = 1e-4.

    Args:
        num_channels: C.
        eps: Added to the variance.
        sync: Whether the batch spans all processes. None follows the run: it does wherever
            there is more than one.

    Shapes: ``[M, C] -> [M, C]``.

    Raises:
        ValueError: C differs; the batch holds a single sample, whose variance is 0.
        RuntimeError: ``sync=True`` outside a distributed run.
    """

    def __init__(self, num_channels: int, eps: float = 1e-4, sync: bool | None = None) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.eps = eps
        self.sync = sync

    def forward(self, x: Tensor) -> Tensor:
        x = _samples(x, self.num_channels)
        if is_synchronized(self.sync):
            count = all_reduce_sum(x.new_tensor(float(len(x))))
            self._check_count(int(count))
            centred = x - all_reduce_sum(x.sum(dim=0)) / count
            variance = all_reduce_sum(centred.square().sum(dim=0)) / count
            return centred * torch.rsqrt(variance + self.eps)
        self._check_count(len(x))
        return batch_norm(x, None, None, training=True, eps=self.eps)

    @staticmethod
    def _check_count(count: int) -> None:
        if count < 2:
            raise ValueError(
                f"BatchNormalizer needs 2 samples or more, got {count}: use view='dense', a "
                "larger batch, or a normalizer that looks at one sample, such as mmkd.L2Normalizer"
            )


@MODELS.register_module()
class L2Normalizer(Normalizer):
    """``x / |x|_2`` per sample; a zero sample stays zero.

    Shapes: ``[M, C] -> [M, C]``.

    Raises:
        ValueError: The input is not of rank 2.
    """

    def forward(self, x: Tensor) -> Tensor:
        return unit_vectors(_samples(x))


@MODELS.register_module()
class GroupNormalizer(Normalizer):
    """Mean 0 and variance 1 over each of ``num_groups`` groups of channels, per sample.

    Args:
        num_channels: C.
        num_groups: Number of groups; divides C.
        eps: Added to the variance.

    Shapes: ``[M, C] -> [M, C]``.

    Raises:
        ValueError: ``num_groups`` does not divide C; C differs.
    """

    def __init__(self, num_channels: int, num_groups: int = 32, eps: float = 1e-4) -> None:
        super().__init__()
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError(f"num_groups {num_groups} does not divide {num_channels} channels")
        self.num_channels = num_channels
        self.num_groups = num_groups
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return group_norm(_samples(x, self.num_channels), self.num_groups, eps=self.eps)


@MODELS.register_module()
class LayerNormalizer(Normalizer):
    """Mean 0 and variance 1 over the channels of each sample.

    Args:
        eps: Added to the variance.

    Shapes: ``[M, C] -> [M, C]``.

    Raises:
        ValueError: The input is not of rank 2.
    """

    def __init__(self, eps: float = 1e-4) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = _samples(x)
        return layer_norm(x, x.shape[1:], eps=self.eps)


@MODELS.register_module()
class IdentityNormalizer(Normalizer):
    """The feature as it is, in float32 at least.

    Shapes: any to the same.
    """

    takes_maps = True

    def forward(self, x: Tensor) -> Tensor:
        return at_least_float32(x)
