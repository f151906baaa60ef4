"""Where boxes lie on a feature map's grid.

A map of ``h x w`` cells covers the padded batch of ``H x W`` pixels, so cell (i, j) covers the
pixels from ``i H / h`` to ``(i + 1) H / h`` down and from ``j W / w`` to ``(j + 1) W / w`` across.
Boxes are in pixels of the padded batch, where images, resized, flipped or pasted together, have
taken their boxes with them.

A map whose convolutions rounded up is taken to cover the batch all the same: of a batch 800 pixels
high, P7 has 7 rows of a stride of 128, which here are 114 pixels each, so that a box may lie a row
further down than by the stride. FGD's program scales boxes likewise. P3 to P5 of images that are
padded to multiples of 32 are exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["background_scales", "box_cells", "cells_near_anchors", "object_cells", "object_scales"]


def box_cells(corners: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The cells that boxes touch.

    Args:
        corners: ``[K, 4]``, x1, y1, x2, y2 in pixels.
        grid: Rows and columns of the map.
        size: Height and width of the padded batch in pixels.

    Returns:
        ``[K, 4]`` integers: first column, first row, and the column and row after the last. A box
        takes one cell at least; one that lies outside takes none, which leaves its range empty.
    """
    limits = corners.new_tensor([grid[1], grid[0]])
    scale = limits / corners.new_tensor([size[1], size[0]])
    first = (corners[:, :2] * scale).floor()
    after = torch.maximum((corners[:, 2:] * scale).ceil(), first + 1)
    clipped = [torch.minimum(each.clamp_min(0), limits) for each in (first, after)]
    return torch.cat(clipped, dim=1).long()


def _cells_inside(corners: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Of each box, the mask ``[K, h, w]`` of the cells that it touches. See :func:`box_cells`."""
    x1, y1, x2, y2 = box_cells(corners, grid, size).unsqueeze(-1).unbind(dim=1)
    rows = torch.arange(grid[0], device=corners.device)
    columns = torch.arange(grid[1], device=corners.device)
    is_row, is_column = (rows >= y1) & (rows < y2), (columns >= x1) & (columns < x2)
    return is_row[:, :, None] & is_column[:, None, :]


def object_cells(corners: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The cells that some box of one image touches, ``[h, w]`` of booleans. See
    :func:`box_cells`."""
    return _cells_inside(corners.float(), grid, size).any(dim=0)


def object_scales(boxes: Sequence[Tensor], grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """FGD's scale of the foreground: 1 over the cells of the smallest box that covers a cell.

    Args:
        boxes: Corners ``[K, 4]`` of each image, K may be 0.
        grid, size: See :func:`box_cells`.

    Returns:
        ``[N, h, w]``, 0 outside all boxes.
    """
    return torch.stack([_object_scale(corners.float(), grid, size) for corners in boxes])


def _object_scale(corners: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    inside = _cells_inside(corners, grid, size)
    count = inside.sum(dim=(1, 2)).clamp_min(1)
    nothing = corners.new_zeros(1, *grid)
    return torch.cat([nothing, inside / count[:, None, None]]).amax(dim=0)


def background_scales(objects: Tensor) -> Tensor:
    """FGD's scale of the background: 1 over an image's cells outside all boxes, there alone.

    Args:
        objects: ``[N, h, w]``, above 0 inside boxes.

    Returns:
        ``[N, h, w]``; 0 throughout an image that has no such cell.
    """
    outside = (objects == 0).to(objects.dtype)
    return outside / outside.sum(dim=(1, 2), keepdim=True).clamp_min(1)


def cells_near_anchors(
    boxes: Sequence[Tensor],
    grid: tuple[int, int],
    size: tuple[int, int],
    *,
    scales: Sequence[float] = (8.0,),
    ratios: Sequence[float] = (0.5, 1.0, 2.0),
    threshold: float = 0.5,
) -> Tensor:
    """FGFI's mask: cells with an anchor that overlaps some box well, for that box.

    Of box k, the anchors whose IoU with it exceeds ``threshold`` times the largest of any anchor's;
    the union over boxes.

    Args:
        boxes: Corners ``[K, 4]`` of each image, K may be 0.
        grid, size: See :func:`box_cells`.
        scales: Sides of an anchor of ratio 1, in cells.
        ratios: Height over width; anchors of one scale have one area.
        threshold: From 0 to less than 1.

    Returns:
        ``[N, h, w]`` of booleans; no cell for a box that lies outside, or that no anchor overlaps.
    """
    anchors = _anchors(boxes[0].device, grid, size, scales, ratios)
    inside = (_on_image(corners.float(), grid, size) for corners in boxes)
    near = [_near(corners, anchors, threshold) for corners in inside]
    return torch.stack(near).reshape(len(boxes), *grid, -1).any(dim=-1)


def _anchors(
    device: torch.device,
    grid: tuple[int, int],
    size: tuple[int, int],
    scales: Sequence[float],
    ratios: Sequence[float],
) -> Tensor:
    """``[h w A, 4]``, around the cells' centres."""
    strides = [pixels / cells for pixels, cells in zip(size, grid, strict=True)]
    shapes = [(a * r**0.5 * strides[0], a * r**-0.5 * strides[1]) for a in scales for r in ratios]
    half = torch.tensor(shapes, device=device) / 2
    y, x = (
        (torch.arange(cells, device=device) + 0.5) * stride
        for cells, stride in zip(grid, strides, strict=True)
    )
    x, y = x[None, :, None], y[:, None, None]
    height, width = half.unbind(dim=1)
    sides = torch.broadcast_tensors(x - width, y - height, x + width, y + height)
    return torch.stack(sides, dim=-1).reshape(-1, 4)


def _on_image(corners: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The boxes that touch a cell, whole."""
    first, after = box_cells(corners, grid, size).split(2, dim=1)
    return corners[(first < after).all(dim=1)]


def _near(corners: Tensor, anchors: Tensor, threshold: float) -> Tensor:
    # Slow to import, and needed by few.
    from torchvision.ops import box_iou

    near = torch.zeros(len(anchors), dtype=torch.bool, device=anchors.device)
    # A box at a time: an image of a hundred boxes has tens of millions of pairs on a fine grid.
    for corner in corners:
        overlaps = box_iou(corner[None], anchors)[0]
        near |= (overlaps > threshold * overlaps.amax()) & (overlaps > 0)
    return near
