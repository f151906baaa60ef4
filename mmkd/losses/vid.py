"""Variational information: Ahn et al., *Variational Information Distillation for Knowledge
Transfer* (CVPR 2019)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from mmkd.initial_weights import initialize
from mmkd.losses.base import Loss, Takes
from mmkd.numerics import as_weights, at_least_float32, check_grids
from mmkd.registry import MODELS

__all__ = ["VIDLoss", "gaussian_surprise"]

# The least variance.
_EPS = 1e-5


def gaussian_surprise(mean: Tensor, variance: Tensor, teacher: Tensor) -> Tensor:
    """``1/2 mean (log v_c + (t - m)^2 / v_c)`` over all entries, v a variance of each channel.

    The negative logarithm of a Gaussian's density without its constant, Eq. (5). It may be
    negative.

    Args:
        mean: m, ``[N, C, H, W]``.
        variance: v, ``[C]``, above 0.
        teacher: t, ``[N, C, H, W]``.
    """
    variance = variance[:, None, None]
    squared = (at_least_float32(mean) - at_least_float32(teacher)).square()
    return (variance.log() + squared / variance).mean() / 2


@MODELS.register_module()
class VIDLoss(Loss):
    """How surprising the teacher's map is to a Gaussian that is told by the student's.

    Its mean comes of the student's map by three 1x1 convolutions with ReLU between, of the
    teacher's width; its variance is a parameter of each channel, ``softplus(a_c) + 1e-5``, 5 at the
    beginning (Eq. (6)). The CRD framework's layers and values; its weight is 1 on each of a
    ResNet's stages.

    Args:
        student_channels, teacher_channels: Widths.
        variance: At the beginning, above 1e-5.
        generator: Source of initial weights.

    Shapes: ``[N, C_s, H, W]`` and ``[N, C_t, H, W]`` to a scalar.

    Raises:
        ValueError: A variance out of range; grids that differ, are empty or not of rank 4.
    """

    takes = Takes(form="maps", own_widths=True)

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        variance: float = 5.0,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not _EPS < variance < math.inf:
            raise ValueError(f"variance must be above {_EPS} and finite, got {variance}")
        widths = [student_channels, *[teacher_channels] * 3]
        layers: list[nn.Module] = []
        for ours, theirs in pairwise(widths):
            layers += [nn.utils.skip_init(nn.Conv2d, ours, theirs, 1, bias=False), nn.ReLU()]
        self.mean = nn.Sequential(*layers[:-1])
        initialize(self, generator)
        # Of softplus, the inverse.
        above = variance - _EPS
        self.spread = nn.Parameter(
            torch.full((teacher_channels,), above + math.log(-math.expm1(-above)))
        )

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        check_grids(student, teacher)
        mean = self.mean(as_weights(self, at_least_float32(student)))
        return gaussian_surprise(mean, softplus(self.spread) + _EPS, teacher)
