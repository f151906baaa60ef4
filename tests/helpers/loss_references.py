"""Losses from their definitions, number by number in float64."""

from __future__ import annotations

import math

from torch import Tensor

__all__ = ["cwd_by_loops", "pkd_by_loops"]


def pkd_by_loops(student: Tensor, teacher: Tensor, eps: float = 1e-6) -> float:
    """Half the mean squared difference of channels standardised over images and locations."""
    total = 0.0
    for channel in range(student.shape[1]):
        sides = []
        for side in (student, teacher):
            values = side[:, channel].double().flatten().tolist()
            mean = sum(values) / len(values)
            deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))
            sides.append([(v - mean) / (deviation + eps) for v in values])
        total += sum((a - b) ** 2 for a, b in zip(*sides, strict=True))
    return total / student.numel() / 2


def cwd_by_loops(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> float:
    """Each channel of each image a distribution over its locations; their mean divergence."""
    total = 0.0
    n, channels = student.shape[:2]
    for i in range(n):
        for j in range(channels):
            values = (x[i, j].double().flatten().tolist() for x in (student, teacher))
            p, q = (_distribution(each, temperature) for each in values)
            total += sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
    return temperature**2 * total / (n * channels)


def _distribution(values: list[float], temperature: float) -> list[float]:
    powers = [math.exp((v - max(values)) / temperature) for v in values]
    return [power / sum(powers) for power in powers]
