"""Non-maximum suppression, with the names and conventions of ``mmcv._ext``."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
import torchvision  # noqa: F401  (loads the operators behind torch.ops.torchvision)
from numpy.typing import NDArray
from torch import Tensor

from .precision import common_float

__all__ = ["nms", "softnms"]

Array: TypeAlias = NDArray[np.floating]

LINEAR, GAUSSIAN = 1, 2  # mmcv's codes for the way soft-nms lowers a score; 0 is naive


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Greedy suppression: a box goes when its IoU with a kept, better one exceeds the threshold.

    Args:
        boxes: ``[N, 4]`` as ``(x1, y1, x2, y2)`` in pixels.
        scores: ``[N]``.
        iou_threshold: compared in the precision of the boxes, so that an IoU of exactly the
            threshold keeps both.
        offset: 0, or 1 for the convention that a box is ``x2 - x1 + 1`` wide.

    Returns:
        Indices of the kept boxes, ``[K]`` int64, best score first.
    """
    boxes, scores = common_float(boxes, scores)
    # Moving the far corner gives the widths and the overlaps of the offset convention.
    boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    threshold = torch.tensor(iou_threshold, dtype=boxes.dtype).item()
    return torch.ops.torchvision.nms(boxes, scores, threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (Bodla et al., ICCV 2017): overlap with a better box lowers a score.

    The best remaining box is kept, every other score is multiplied by a weight of their IoU, and
    boxes that fall below ``min_score`` are dropped; then again. The weight is, at or above
    ``iou_threshold``, 0 (naive) or ``1 - IoU`` (linear); or ``exp(-IoU^2 / sigma)`` (gaussian).

    Args:
        boxes: ``[N, 4]`` as ``(x1, y1, x2, y2)`` in pixels.
        scores: ``[N]``.
        dets: ``[N, 5]``; its first K rows receive the kept boxes and their lowered scores.
        method: 0 naive, 1 linear, 2 gaussian.
        offset: 0, or 1 for the convention that a box is ``x2 - x1 + 1`` wide.

    Returns:
        Indices of the kept boxes, ``[K]`` int64, in the order of keeping.
    """
    # NumPy, for this is a long chain of short operations: they take torch ten times as long.
    table = torch.stack(common_float(*boxes.unbind(1), scores)).detach().cpu().numpy()
    table[2:4] += offset
    index = np.arange(len(boxes))
    kept, kept_scores = [], []
    while len(index):
        best = table[4].argmax()
        kept.append(index[best])
        kept_scores.append(table[4, best])
        table[4] *= _soft_weight(_iou(table[:4, best], table[:4]), iou_threshold, sigma, method)
        left = table[4] >= min_score
        left[best] = False
        table, index = table.compress(left, axis=1), index[left]
    order = torch.tensor(kept, dtype=torch.long, device=boxes.device)
    dets[: len(order), :4] = boxes[order]
    dets[: len(order), 4] = dets.new_tensor(kept_scores)
    return order


def _soft_weight(overlap: Array, iou_threshold: float, sigma: float, method: int) -> Array:
    if method == GAUSSIAN:
        return np.exp(-(overlap**2) / sigma)
    return np.where(overlap >= iou_threshold, 1 - overlap if method == LINEAR else 0, 1)


def _iou(box: Array, boxes: Array) -> Array:
    """IoU of one box with each of ``[4, N]``; 0 where both have no area."""
    width = np.minimum(box[2], boxes[2]) - np.maximum(box[0], boxes[0])
    height = np.minimum(box[3], boxes[3]) - np.maximum(box[1], boxes[1])
    intersection = width.clip(min=0) * height.clip(min=0)
    areas = (boxes[2] - boxes[0]) * (boxes[3] - boxes[1])
    union = (box[2] - box[0]) * (box[3] - box[1]) + areas - intersection
    return intersection / np.maximum(union, np.finfo(union.dtype).tiny)
