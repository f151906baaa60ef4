"""Precision shared by normalizers and losses: nothing is compared below float32."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "as_weights",
    "at_least_float32",
    "check_factors",
    "check_grids",
    "check_images",
    "check_logits",
    "check_maps",
    "check_pair",
    "check_positive",
    "check_samples",
    "check_temperature",
    "in_its_unit",
    "inner_products",
    "unit_vectors",
]


def at_least_float32(x: Tensor) -> Tensor:
    """Casts half precision up; float32 and float64 stay what they are."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def as_weights(module: nn.Module, x: Tensor) -> Tensor:
    """What a module is given, in its weights' own precision, unless an autocast sees to it."""
    weight = next(module.parameters(), x)
    return x if torch.is_autocast_enabled(x.device.type) else x.to(weight.dtype)


def check_pair(student: Tensor, teacher: Tensor) -> None:
    """Raises ValueError unless both sides have the same shape and hold at least one sample."""
    if student.shape != teacher.shape:
        raise ValueError(
            "student and teacher must have the same shape, got "
            f"{tuple(student.shape)} and {tuple(teacher.shape)}: project the student first"
        )
    if student.numel() == 0:
        raise ValueError(f"nothing to compare: the features are empty, {tuple(student.shape)}")


def check_samples(student: Tensor, teacher: Tensor) -> None:
    """Raises ValueError unless both sides are samples ``[M, C]`` of the same shape."""
    _check_rank(student, teacher, 2, "samples [M, C]")


def check_logits(student: Tensor, teacher: Tensor) -> None:
    """Raises ValueError unless both sides are logits ``[N, K]`` of the same shape."""
    _check_rank(student, teacher, 2, "logits [N, K]")


def check_maps(student: Tensor, teacher: Tensor) -> None:
    """Raises ValueError unless both sides are maps ``[N, C, H, W]`` of the same shape."""
    _check_rank(student, teacher, 4, "maps [N, C, H, W]")


def check_grids(student: Tensor, teacher: Tensor) -> None:
    """Raises ValueError unless both sides are maps on one grid; their widths may differ."""
    for x in (student, teacher):
        if x.ndim != 4:
            raise ValueError(f"expected maps [N, C, H, W], got {tuple(x.shape)}")
    check_pair(student[:, :1], teacher[:, :1])


def check_images(student: Tensor, teacher: Tensor) -> None:
    """Raises ValueError unless both sides are a row an image, ``[N, D]``; D may differ."""
    for x in (student, teacher):
        if x.ndim != 2:
            raise ValueError(f"expected images [N, D], got {tuple(x.shape)}")
    check_pair(student[:, :1], teacher[:, :1])


def _check_rank(student: Tensor, teacher: Tensor, rank: int, form: str) -> None:
    check_pair(student, teacher)
    if student.ndim != rank:
        raise ValueError(f"expected {form}, got {tuple(student.shape)}")


def check_factors(**factors: float) -> None:
    """Raises ValueError for a factor that is no number, below 0 or not finite, naming it."""
    for name, factor in factors.items():
        if not (_is_number(factor) and 0 <= factor < math.inf):
            raise ValueError(f"{name} must be 0 or more and finite, got {factor!r}")


def check_temperature(temperature: float) -> None:
    """Raises ValueError unless it is a number above 0 and finite."""
    if not (_is_number(temperature) and 0 < temperature < math.inf):
        raise ValueError(f"temperature must be above 0 and finite, got {temperature!r}")


def unit_vectors(x: Tensor) -> Tensor:
    """Scales every row of ``[M, C]`` to length 1; a zero row stays zero, with finite gradient.

    Rows are divided by their largest entry first, so that no square over- or underflows.
    """
    x = at_least_float32(x)
    largest = x.detach().abs().amax(dim=-1, keepdim=True)
    is_zero = largest == 0
    x = x / largest.masked_fill(is_zero, 1)
    # The mask keeps the square root away from 0, where its gradient is infinite.
    squared = x.square().sum(dim=-1, keepdim=True).masked_fill(is_zero, 1)
    return x * squared.rsqrt()


def in_its_unit(x: Tensor) -> Tensor:
    """A feature in units of its largest entry, where no square overflows: for what has no unit."""
    x = at_least_float32(x)
    return x / x.detach().abs().max().clamp_min(1e-30)


def inner_products(x: Tensor, y: Tensor) -> Tensor:
    """Of every row of ``[..., M, C]`` with every row of ``[..., K, C]``: ``[..., M, K]``.

    In float32 at least, whatever the autocast.
    """
    with torch.autocast(device_type=x.device.type, enabled=False):
        return at_least_float32(x) @ at_least_float32(y).transpose(-1, -2)


def check_positive(**sizes: int) -> None:
    """Raises ValueError for a size that is no positive integer, naming it."""
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{name} must be a positive integer, got {size!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
