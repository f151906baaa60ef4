"""What maps hold of the objects that boxes mark."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["in_boxes"]


def in_boxes(maps: Sequence[Tensor], boxes: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """The mean of each level in each box, ``[M, sum of C]``.

    Args:
        maps: ``[N, C, H, W]``, one a level.
        boxes: ``[M_i, 4]`` of each image: x1, y1, x2, y2 in pixels of the network's input.
        size: Height and width of that, with its padding.
    """
    # Slow to import, and needed by few.
    from torchvision.ops import roi_align

    corners = [each.to(maps[0]) for each in boxes]
    levels = [
        roi_align(each, corners, 1, each.shape[-2] / size[0], aligned=True).flatten(1)
        for each in maps
    ]
    return torch.cat(levels, dim=1).float().cpu()
