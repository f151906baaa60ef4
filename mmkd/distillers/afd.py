"""AFD: Ji et al., *Show, Attend and Distill: Knowledge Distillation via Attention-based Feature
Matching* (AAAI 2021)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from mmkd.batch_norm import BatchNorm
from mmkd.distiller import Distiller
from mmkd.initial_weights import initialize, linear_layer
from mmkd.losses.base import Takes
from mmkd.numerics import as_weights, at_least_float32, check_positive, in_its_unit, unit_vectors
from mmkd.registry import MODELS
from mmkd.targets import Targets

__all__ = ["AFDDistiller", "attention_pattern"]


def attention_pattern(feature: Tensor, grid: tuple[int, int]) -> Tensor:
    """Where a map is strong on a grid: ``[N, h w]``, of length 1; its squares' mean over channels.

    Args:
        feature: ``[N, C, H, W]``.
        grid: h and w; the squares of another are average-pooled or repeated to it.
    """
    squares = in_its_unit(feature).square().mean(dim=1, keepdim=True)
    if feature.shape[2:] != grid:
        squares = adaptive_avg_pool2d(squares, grid)
    return unit_vectors(squares.flatten(1))


@MODELS.register_module()
class AFDDistiller(Distiller):
    """Every level of the teacher attends to those of the student that resemble it.

    ``sum_t mean_n sum_s a_ts mean (p(t) - p(s))^2`` with the patterns of
    :func:`attention_pattern` on the teacher's grid and, over the student's levels s,
    ``a_t = softmax((q_t . BN(W_t k_s) + u_t . v_s) / sqrt(d))`` of queries ``q = BN(L x)`` and keys
    ``k = relu(BN(L x))`` of pooled features x, with a position u, v of each level (Eqs. (3) to (6),
    with the normalisation of the authors' program). What is trained beside the student are the
    linear maps L and W, which have biases, their BatchNorms, u and v. Levels are what a term names,
    as many as there are on either side; that program has all blocks of both networks.

    Args:
        student_channels, teacher_channels: Of each level.
        width: d, of queries and keys; 128 in the authors' program.
        weight: See :class:`mmkd.distiller.Distiller`; 200 on CIFAR-100, beside 0.9 of KD.
        seed: Of initial weights.

    Shapes: lists of ``[N, C_s, H, W]`` and of ``[N, C_t, H, W]``, one a level, to a scalar.

    Raises:
        ValueError: A feature that is no map; a width that is not positive.
    """

    takes = Takes(form="maps", own_widths=True, several_levels=True, in_pairs=False)

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        width: int = 128,
        weight: float | Mapping[str, Any] = 1.0,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(weight)
        check_positive(width=width)
        self.width = width
        self.keys = nn.ModuleList(_NormedLinear(each, width) for each in student_channels)
        self.queries = nn.ModuleList(_NormedLinear(each, width) for each in teacher_channels)
        # All of the teacher's levels' in one, whose batch are the student's levels of all images.
        self.bilinear = _NormedLinear(width, width * len(teacher_channels))
        generator = torch.Generator().manual_seed(seed)
        initialize(self, generator)
        sides = [
            torch.randn(len(each), width, generator=generator) * math.sqrt(2 / (len(each) + width))
            for each in (student_channels, teacher_channels)
        ]
        self.student_places, self.teacher_places = map(nn.Parameter, sides)

    def check_features(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> None:
        """See :meth:`mmkd.distiller.Distiller.check_features`; tokens are refused too."""
        for feature in (*student, *teacher):
            if feature.ndim != 4 or not feature.numel():
                raise ValueError(f"AFD takes maps [N, C, H, W], got {tuple(feature.shape)}")

    def distance(
        self,
        student: Sequence[Tensor],
        teacher: Sequence[Tensor],
        targets: Targets | None = None,
    ) -> Tensor:
        """See :meth:`mmkd.distiller.Distiller.distance`."""
        self.check_features(student, teacher)
        teacher = [each.detach() for each in teacher]
        attention = self.attention(student, teacher)
        grids = [(theirs.shape[2], theirs.shape[3]) for theirs in teacher]
        ours = {
            grid: torch.stack([attention_pattern(x, grid) for x in student], dim=1)
            for grid in set(grids)
        }
        distances = []
        for index, (theirs, grid) in enumerate(zip(teacher, grids, strict=True)):
            pattern = attention_pattern(theirs, grid)[:, None]
            weighed = attention[:, index] * (ours[grid] - pattern).square().mean(dim=2)
            distances.append(weighed.sum(dim=1).mean())
        return torch.stack(distances).sum()

    def attention(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """``[N, T, S]``: how much each of the teacher's levels looks at each of the student's."""
        keys = torch.stack(
            [f(_pooled(x)).relu() for f, x in zip(self.keys, student, strict=True)], dim=1
        )
        queries = torch.stack(
            [f(_pooled(x)) for f, x in zip(self.queries, teacher, strict=True)], dim=1
        )
        turned = self.bilinear(keys.flatten(0, 1)).reshape(*keys.shape[:2], -1, self.width)
        logits = (turned.transpose(1, 2) * queries[:, :, None]).sum(dim=3)
        logits = logits + self.teacher_places @ self.student_places.T
        return at_least_float32(logits / math.sqrt(self.width)).softmax(dim=2)


def _pooled(x: Tensor) -> Tensor:
    return at_least_float32(x).mean(dim=(2, 3))


class _NormedLinear(nn.Module):
    """A linear map and BatchNorm, ``[M, C]`` to ``[M, width]``."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.linear, self.norm = linear_layer(channels, width), BatchNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(as_weights(self, x)))
