"""Images of bright rectangles on black, whose boxes are read from the pixels again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from torch import Tensor

from mmkd.targets import Boxes

__all__ = ["Rectangle", "large_ones_that_agree", "paint", "seen_in"]

# Its class, which is the channel (of RGB) in which it is bright, and x1, y1, x2, y2 in pixels.
Rectangle = tuple[int, tuple[float, float, float, float]]


def paint(file: Path, size: tuple[int, int], rectangles: Sequence[Rectangle]) -> None:
    """Writes an image of a height and a width."""
    pixels = np.zeros((*size, 3), np.uint8)
    for channel, corners in rectangles:
        x1, y1, x2, y2 = map(int, corners)
        pixels[y1:y2, x1:x2, channel] = 255
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


def seen_in(image: Tensor, threshold: float = 0.5) -> list[Rectangle]:
    """The rectangles of an image ``[3, H, W]``: what hangs together above a threshold."""
    found: list[Rectangle] = []
    for channel, plane in enumerate(image.numpy()):
        for rows, columns in ndimage.find_objects(ndimage.label(plane > threshold)[0]):
            found.append((channel, (columns.start, rows.start, columns.stop, rows.stop)))
    return found


def large_ones_that_agree(image: Tensor, boxes: Boxes) -> int:
    """How many rectangles are seen that are not cut down to little, of which nothing may be told;
    all others are told, and all that are told are seen, or else an assertion fails."""
    told = list(zip(boxes.classes.tolist(), boxes.corners.tolist(), strict=True))
    # Above the grey between images.
    seen = seen_in(image, threshold=0.7)
    large = [each for each in seen if _area(each) > 100]
    assert all(any(_is_same(a, b) for b in seen) for a in told)
    assert all(any(_is_same(a, b) for b in told) for a in large)
    return len(large)


def _area(rectangle: Rectangle) -> float:
    x1, y1, x2, y2 = rectangle[1]
    return (x2 - x1) * (y2 - y1)


def _is_same(one: Rectangle, other: Rectangle) -> bool:
    # Edges are blurred by a pixel.
    return one[0] == other[0] and one[1] == pytest.approx(other[1], abs=1.5)
