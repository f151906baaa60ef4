"""FBKD: Zhang & Ma, *Improve Object Detection with Feature-based Knowledge Distillation* (ICLR
2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d

from mmkd.attention_maps import spatial_attention
from mmkd.initial_weights import initialize
from mmkd.losses.base import Loss, Takes
from mmkd.numerics import as_weights, at_least_float32, check_factors, check_grids
from mmkd.registry import MODELS

__all__ = ["FBKDLoss"]

# Of the paper's attention.
_TEMPERATURE = 0.5


@MODELS.register_module()
class FBKDLoss(Loss):
    """Attention-guided and non-local distillation of a map.

    ``a |sqrt(M) (t - f(s))| + b |mean_hw t - f(mean_hw s)| + b |mean_c t - f(mean_c s)|
    + a |NL(t) - f(NL(s))|``

    with M the mean of both sides' spatial attention (:mod:`mmkd.attention_maps`, T = 0.5), without
    gradient; every f an adaptation of its own (1x1, linear, 3x3, 1x1); NL a trained non-local block
    (Wang et al., CVPR 2018) on either side; and norms over the batch that are not squared. Eq. (1)
    to (6) of the paper, with its factors. The authors' program multiplies M by the attention of the
    channels too.

    Args:
        student_channels, teacher_channels: C_s, C_t.
        feature: a.
        attention: b.
        context_cells: A non-local block compares each cell with a grid of no more than this side,
            to which larger maps are max-pooled; the paper's own divides the map likewise.
        generator: Source of initial weights.

    Shapes: ``[N, C_s, H, W]`` and ``[N, C_t, H, W]`` to a scalar.

    Raises:
        ValueError: A factor below 0; other channels; grids that differ or are empty.
    """

    takes = Takes(form="maps", own_widths=True)

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        feature: float = 7e-5,
        attention: float = 4e-3,
        context_cells: int = 16,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_factors(feature=feature, attention=attention)
        if context_cells < 1:
            raise ValueError(f"context_cells must be 1 or more, got {context_cells}")
        self.feature, self.attention = feature, attention
        convolution, linear = nn.Conv2d, nn.Linear
        self.adapted = nn.utils.skip_init(convolution, student_channels, teacher_channels, 1)
        self.adapted_channels = nn.utils.skip_init(linear, student_channels, teacher_channels)
        self.adapted_cells = nn.utils.skip_init(convolution, 1, 1, 3, padding=1)
        self.adapted_context = nn.utils.skip_init(
            convolution, student_channels, teacher_channels, 1
        )
        initialize(self, generator)
        self.student_context = _NonLocal(student_channels, context_cells, generator)
        self.teacher_context = _NonLocal(teacher_channels, context_cells, generator)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        check_grids(student, teacher)
        s, t = (as_weights(self, at_least_float32(x)) for x in (student, teacher))
        where = (spatial_attention(s, _TEMPERATURE) + spatial_attention(t, _TEMPERATURE)).detach()
        features = [
            (where / 2).sqrt() * (t - self.adapted(s)),
            self.teacher_context(t) - self.adapted_context(self.student_context(s)),
        ]
        attentions = [
            t.mean(dim=(2, 3)) - self.adapted_channels(s.mean(dim=(2, 3))),
            t.mean(dim=1, keepdim=True) - self.adapted_cells(s.mean(dim=1, keepdim=True)),
        ]
        return self.feature * _norms(features) + self.attention * _norms(attentions)


def _norms(differences: list[Tensor]) -> Tensor:
    return torch.stack([torch.linalg.vector_norm(each) for each in differences]).sum()


class _NonLocal(nn.Module):
    """``x + W sum_j softmax_j(theta(x_i) phi(x_j)) g(x_j)``; the identity at first, for W is 0."""

    def __init__(
        self, num_channels: int, context_cells: int, generator: torch.Generator | None
    ) -> None:
        super().__init__()
        inner = max(1, num_channels // 2)
        self.query, self.key, self.value = (
            nn.utils.skip_init(nn.Conv2d, num_channels, inner, 1) for _ in range(3)
        )
        self.restored = nn.utils.skip_init(nn.Conv2d, inner, num_channels, 1)
        initialize(self, generator)
        for parameter in self.restored.parameters():
            nn.init.zeros_(parameter)
        self._context_cells = context_cells

    def forward(self, x: Tensor) -> Tensor:
        grid = [min(side, self._context_cells) for side in x.shape[2:]]
        pooled = adaptive_max_pool2d(x, grid)
        queries, keys, values = (
            each.flatten(2).transpose(1, 2)
            for each in (self.query(x), self.key(pooled), self.value(pooled))
        )
        found = (queries @ keys.transpose(1, 2)).softmax(dim=2) @ values
        return x + self.restored(found.transpose(1, 2).unflatten(2, x.shape[2:]))
