"""Image files: whether they are whole, and how large they are drawn."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image

__all__ = ["image_size"]

# Transposed or turned by a quarter, so that width and height change places.
_QUARTER_TURNS = (5, 6, 7, 8)
_END_OF_JPEG = b"\xff\xd9"


def image_size(file: Path) -> tuple[int, int]:
    """Width and height of a whole image as it is drawn: turned by its EXIF orientation.

    Of a JPEG that ends as it should nothing else is read, and of a PNG only the checksums of its
    parts, since a large set is to be checked in minutes. Anything else is decoded.

    Raises:
        Exception: Of any kind, as the formats' readers have them: it is no image, is cut short, or
            has more pixels than PIL is willing to decode.
    """
    with file.open("rb") as stream, Image.open(stream) as image:
        width, height = image.size
        # Only asked where there is some: a PNG without would be decoded in search of it.
        tagged = "exif" in image.info or image.format == "TIFF"
        turn = image.getexif().get(ExifTags.Base.Orientation) if tagged else None
        if image.format == "PNG":
            image.verify()
        elif image.format not in ("JPEG", "MPO") or not _ends_as_jpeg(stream):
            image.load()
    return (height, width) if turn in _QUARTER_TURNS else (width, height)


def _ends_as_jpeg(stream: BinaryIO) -> bool:
    place = stream.tell()
    try:
        stream.seek(-len(_END_OF_JPEG), os.SEEK_END)
        return stream.read() == _END_OF_JPEG
    finally:
        stream.seek(place)
