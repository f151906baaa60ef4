"""Annotations and detections of few boxes, without files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmkd.evaluation.coco_files import Annotations, Detections

Box = tuple[float, float, float, float]
# Image, category, box, and whether it is a crowd.
Truth = tuple[int, int, Box, bool]
# Image, category, box, score.
Found = tuple[int, int, Box, float]


def annotations(truth: Sequence[Truth], *, images: int, categories: int) -> Annotations:
    """Boxes on images ``0.png``, ... (ids from 10 up) of the categories ``a``, ``b``, ..."""
    boxes = np.array([box for _, _, box, _ in truth], float).reshape(-1, 4)
    return Annotations(
        Path("truth.json"),
        "",
        list(range(10, 10 + images)),
        [f"{image}.png" for image in range(images)],
        list(range(1, categories + 1)),
        [chr(ord("a") + category) for category in range(categories)],
        np.array([image for image, _, _, _ in truth], np.int64),
        np.array([category for _, category, _, _ in truth], np.int64),
        boxes,
        boxes[:, 2] * boxes[:, 3],
        np.array([crowd for _, _, _, crowd in truth], bool),
    )


def detections(found: Sequence[Found]) -> Detections:
    """Boxes with scores."""
    return Detections(
        Path("found.json"),
        np.array([image for image, _, _, _ in found], np.int64),
        np.array([category for _, category, _, _ in found], np.int64),
        np.array([box for _, _, box, _ in found], float).reshape(-1, 4),
        np.array([score for _, _, _, score in found], float),
        "",
    )
