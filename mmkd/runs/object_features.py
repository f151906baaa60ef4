"""Features of the objects that images show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import roi_align

__all__ = ["ObjectFeatures", "chunks", "in_boxes"]

_CHUNK = 8


@dataclass(frozen=True)
class ObjectFeatures:
    """What a network holds just before it names a class.

    Args:
        features: ``[M, C]``: a classifier's of each image, before its last linear layer; a
            detector's of each box of the truth, of all levels of the neck one after another.
        labels: ``[M]``, int64.
        classes: Their names.
    """

    features: Tensor
    labels: Tensor
    classes: tuple[str, ...]


def chunks(indices: Sequence[int]) -> Iterator[Sequence[int]]:
    """As many as are looked at in one batch."""
    for start in range(0, len(indices), _CHUNK):
        yield indices[start : start + _CHUNK]


def in_boxes(maps: Sequence[Tensor], boxes: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """The mean of each level in each box, ``[M, sum of C]``.

    Args:
        maps: ``[N, C, H, W]``, one a level.
        boxes: ``[M_i, 4]`` of each image: x1, y1, x2, y2 in pixels of the network's input.
        size: Height and width of that, with its padding.
    """
    corners = [each.to(maps[0]) for each in boxes]
    levels = [
        roi_align(each, corners, 1, each.shape[-2] / size[0], aligned=True).flatten(1)
        for each in maps
    ]
    return torch.cat(levels, dim=1).float().cpu()
