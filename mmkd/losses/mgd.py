"""MGD: Yang et al., *Masked Generative Distillation* (ECCV 2022)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmkd.initial_weights import initialize
from mmkd.losses.base import Loss, Takes
from mmkd.numerics import as_weights, at_least_float32, check_maps
from mmkd.registry import MODELS
from mmkd.seeded_draws import SeededDraws

__all__ = ["MGDLoss"]


@MODELS.register_module()
class MGDLoss(Loss):
    """``sum (G(M s) - t)^2 / N``: the teacher's map from a part of the student's cells.

    M drops each cell with probability ``masked``, another draw in every iteration; G is a 3x3
    convolution, ReLU, and another 3x3 convolution. Eq. (3) to (6) of the paper, without its factor.
    The paper's weights are 5e-7 for two-stage and 2e-5 for one-stage detectors, with ``masked`` of
    0.45 and 0.65, and gradients clipped at 35.

    Args:
        num_channels: C, of both sides.
        masked: Share of cells that are dropped, from 0 to less than 1.
        seed: Of the masks.
        generator: Source of G's initial weights.

    Shapes: ``[N, C, H, W]`` and ``[N, C, H, W]`` to a scalar.

    Raises:
        ValueError: A share out of range; shapes that differ, are empty or not of rank 4.
    """

    takes = Takes(form="maps")

    def __init__(
        self,
        num_channels: int,
        masked: float = 0.65,
        *,
        seed: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= masked < 1:
            raise ValueError(f"masked must be from 0 to less than 1, got {masked}")
        self.masked = masked
        self.generation = nn.Sequential(
            *(
                nn.utils.skip_init(nn.Conv2d, num_channels, num_channels, 3, padding=1)
                for _ in range(2)
            )
        )
        self.generation.insert(1, nn.ReLU())
        initialize(self, generator)
        self.draws = SeededDraws(seed)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        check_maps(student, teacher)
        n, _, height, width = student.shape
        is_kept = self.draws((n, 1, height, width), student.device) >= self.masked
        generated = self.generation(as_weights(self, at_least_float32(student) * is_kept))
        return (generated - at_least_float32(teacher)).square().sum() / n
