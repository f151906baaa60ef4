"""Where on an image the student's feature is like the teacher's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from mmkd.analysis.samples import as_float64
from mmkd.box_masks import object_cells

__all__ = ["ByPlace", "cosine_by_place"]

# Of a side in pixels, COCO's: objects below the first are small, from the second on large.
_LIMITS = (32.0, 96.0)


class ByPlace(NamedTuple):
    """Means over the cells of a batch; nan where there are none.

    Args:
        inside, outside: Cells that some box touches, and the others.
        small, medium, large: Cells of boxes of less than 32 x 32 pixels, less than 96 x 96, and
            more; a cell counts for each size of which a box touches it.
    """

    inside: float
    outside: float
    small: float
    medium: float
    large: float


def cosine_by_place(
    student: Tensor, teacher: Tensor, boxes: Sequence[Tensor], size: tuple[int, int]
) -> ByPlace:
    """The mean cosine of both features at a cell, in float64.

    Args:
        student, teacher: ``[N, C, h, w]``, the student's projected.
        boxes: Corners ``[K, 4]`` of each image in pixels of the padded batch, K may be 0.
        size: Height and width of the padded batch.

    Raises:
        ValueError: Features of other shapes, or other numbers of images.
    """
    if student.shape != teacher.shape or student.ndim != 4 or len(boxes) != len(student):
        raise ValueError(
            f"expected maps [N, C, h, w] of one shape and the boxes of N images, got "
            f"{tuple(student.shape)}, {tuple(teacher.shape)} and {len(boxes)}"
        )
    cosines = cosine_similarity(as_float64(student), as_float64(teacher), dim=1)
    grid = (student.shape[2], student.shape[3])
    areas = [(each[:, 2:] - each[:, :2]).clamp_min(0).prod(dim=1) for each in boxes]
    limits = [0.0, *(side**2 for side in _LIMITS), math.inf]
    sizes = [
        torch.stack(
            [
                object_cells(corners[(low <= area) & (area < high)], grid, size)
                for corners, area in zip(boxes, areas, strict=True)
            ]
        )
        for low, high in pairwise(limits)
    ]
    inside = torch.stack(sizes).any(dim=0)
    return ByPlace(*(_mean(cosines, mask) for mask in (inside, ~inside, *sizes)))


def _mean(values: Tensor, mask: Tensor) -> float:
    mask = mask.to(values.device)
    return float(values[mask].mean()) if mask.any() else math.nan
