"""The boxes of annotation and detection files, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["Annotations", "Detections"]


@dataclass(frozen=True, eq=False)
class Annotations:
    """The boxes of a COCO annotation file.

    Args:
        file: Where it was read from.
        digest: SHA-256 of the file's bytes, in hexadecimal.
        image_ids: Ascending.
        file_names: Of these images.
        category_ids: Ascending.
        category_names: Of these categories; each but once.
        image: ``[n]``, each box's image as an index into ``image_ids``.
        category: ``[n]``, each box's category as an index into ``category_ids``.
        boxes: ``[n, 4]``, x, y, width and height in pixels.
        areas: ``[n]``, in square pixels: the file's ``area``, which in COCO is the mask's.
        crowd: ``[n]``, whether a box stands for a crowd, which counts neither as found nor missed.
    """

    file: Path
    digest: str
    image_ids: list[int] | list[str]
    file_names: list[str]
    category_ids: list[int]
    category_names: list[str]
    image: NDArray[np.int64]
    category: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Detections:
    """The boxes of a detection file, on the images and categories of an annotation file.

    Args:
        file: Where they were read from.
        image: ``[n]``, indices into the annotations' ``image_ids``.
        category: ``[n]``, indices into the annotations' ``category_ids``.
        boxes: ``[n, 4]``, x, y, width and height in pixels.
        scores: ``[n]``.
        convention: How the file's ids were read, for people.
    """

    file: Path
    image: NDArray[np.int64]
    category: NDArray[np.int64]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    convention: str

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score: float) -> Detections:
        """Those of this score or a higher one."""
        kept = self.scores >= score
        return Detections(
            self.file,
            self.image[kept],
            self.category[kept],
            self.boxes[kept],
            self.scores[kept],
            self.convention,
        )
