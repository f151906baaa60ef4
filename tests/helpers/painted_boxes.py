"""Images of bright rectangles on black, whose boxes are read from the pixels again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage
from torch import Tensor

__all__ = ["Rectangle", "paint", "seen_in"]

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
