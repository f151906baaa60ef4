"""Losses from their definitions, number by number in float64."""

from __future__ import annotations

import math

from torch import Tensor

__all__ = ["attention_transfer_by_loops", "cwd_by_loops", "fgd_by_loops", "pkd_by_loops"]


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


def fgd_by_loops(
    student: Tensor, teacher: Tensor, boxes: list[list[list[float]]], size: tuple[int, int]
) -> dict[str, float]:
    """FGD's sums before their factors, at the attention's temperature of 0.5: ``foreground``,
    ``background`` and ``attention``, over N images."""
    n, channels, height, width = student.shape
    sums = dict(foreground=0.0, background=0.0, attention=0.0)
    for i in range(n):
        where_s, which_s = _attentions(student[i])
        where_t, which_t = _attentions(teacher[i])
        scale = _smallest_box(boxes[i], (height, width), size)
        outside = sum(value == 0 for row in scale for value in row)
        for y in range(height):
            for x in range(width):
                squares = sum(
                    which_t[c] * float(student[i, c, y, x] - teacher[i, c, y, x]) ** 2
                    for c in range(channels)
                )
                inside = scale[y][x]
                kind = "foreground" if inside else "background"
                sums[kind] += (inside or 1 / outside) * where_t[y][x] * squares
                sums["attention"] += abs(where_s[y][x] - where_t[y][x])
        sums["attention"] += sum(abs(a - b) for a, b in zip(which_s, which_t, strict=True))
    return {name: value / n for name, value in sums.items()}


def _attentions(image: Tensor) -> tuple[list[list[float]], list[float]]:
    channels, height, width = image.shape
    strength = image.double().abs()
    cells = _distribution([float(v) for v in strength.mean(0).flatten()], 0.5)
    rows = [[height * width * cells[y * width + x] for x in range(width)] for y in range(height)]
    return rows, [channels * v for v in _distribution(strength.mean((1, 2)).tolist(), 0.5)]


def _smallest_box(
    boxes: list[list[float]], grid: tuple[int, int], size: tuple[int, int]
) -> list[list[float]]:
    """1 over the cells of the smallest box on each cell, 0 where there is none."""
    scale = [[0.0] * grid[1] for _ in range(grid[0])]
    for box in boxes:
        cells = [
            (y, x)
            for y in range(grid[0])
            for x in range(grid[1])
            if _touches(box, y, x, grid, size)
        ]
        for y, x in cells:
            scale[y][x] = max(scale[y][x], 1 / len(cells))
    return scale


def _touches(
    box: list[float], row: int, column: int, grid: tuple[int, int], size: tuple[int, int]
) -> bool:
    """Whether the box and the cell have an area in common."""
    high, wide = size[0] / grid[0], size[1] / grid[1]
    across = min(box[2], (column + 1) * wide) - max(box[0], column * wide)
    return across > 0 and min(box[3], (row + 1) * high) - max(box[1], row * high) > 0


def attention_transfer_by_loops(student: Tensor, teacher: Tensor, power: float = 2.0) -> float:
    """Squared differences of unit attention vectors, in the mean over images and cells."""
    total, n = 0.0, len(student)
    for i in range(n):
        sides = []
        for side in (student, teacher):
            flat = side[i].double().abs().pow(power).mean(0).flatten().tolist()
            length = math.sqrt(sum(v * v for v in flat))
            sides.append([v / length for v in flat])
        total += sum((a - b) ** 2 for a, b in zip(*sides, strict=True)) / len(sides[0])
    return total / n
