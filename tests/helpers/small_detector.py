"""A detector of a few layers, whose parts can be tapped one by one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["IMAGES", "Backbone", "Detector", "weights_of"]


class Backbone(nn.Module):
    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.layer1 = nn.Sequential(*[nn.Conv2d(4, 4, 1) for _ in range(depth)])
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        stem = self.stem(x)
        return stem, self.drop(self.norm(self.layer1(stem)))


class Detector(nn.Module):
    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        self.backbone = Backbone(depth)
        self.neck = nn.Conv2d(4, 5, 1)
        self.head = nn.Conv2d(5, 2, 1)
        self.head_calls = 0

    def forward(self, x: Tensor, samples: Any = None) -> Tensor:
        features = self.backbone(x)
        self.head_calls += 1
        return self.head(self.neck(features[-1]))


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
