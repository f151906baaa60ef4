"""The report's gallery: photos with the boxes of the truth and of every run."""

from __future__ import annotations

import base64
import io
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from mmkd.evaluation.coco_files import Annotations
from mmkd.evaluation.detection_errors import ERROR_TYPES
from mmkd.evaluation.gallery import GalleryBox, GalleryImage
from mmkd.input_files import check_regular

__all__ = ["Mark", "Panel", "Picture", "gallery_pictures"]

# Of the longer side in pixels: what the page shows of an enlarged picture.
_PHOTO_SIDE = 800
_PHOTO_QUALITY = 80
_LABELLED = set(ERROR_TYPES) - {"missed"}


@dataclass(frozen=True)
class Mark:
    """A box in a panel.

    Args:
        box: x, y, width and height in pixels of the image.
        category: Index of its class, for the filter.
        kind: See :class:`mmkd.evaluation.gallery.GalleryBox`, with a hyphen for the space.
        label: Its class and score.
        description: What a pointer over the box shows.
    """

    box: tuple[float, float, float, float]
    category: int
    kind: str
    label: str
    description: str


@dataclass(frozen=True)
class Panel:
    """An image with the boxes of the truth or of a run.

    Args:
        title: The run's name.
        summary: How many boxes of each kind there are.
        marks: The boxes: errors last, which are labelled first; among equals the largest first, so
            that small ones can be pointed at.
    """

    title: str
    summary: str
    marks: list[Mark]


@dataclass(frozen=True)
class Picture:
    """An image of the gallery.

    Args:
        key: Unique in the page.
        file_name: As the annotation file has it.
        width: Of the image, in pixels, or of what the boxes cover where there is no photo.
        height: Likewise.
        photo: Data URI of a small JPEG, or None.
        note: Why there is no photo.
        panels: The truth, then the runs.
    """

    key: str
    file_name: str
    width: float
    height: float
    photo: str | None
    note: str
    panels: list[Panel]

    @property
    def filters(self) -> str:
        """What the image has, as the page's filters read it: ``class:kind``, each but once."""
        found = {(mark.category, mark.kind) for panel in self.panels for mark in panel.marks}
        return " ".join(f"{category}:{kind}" for category, kind in sorted(found))


def gallery_pictures(
    selected: Sequence[GalleryImage],
    annotations: Annotations,
    images: Path | None,
) -> list[Picture]:
    """Pictures of the selected images, in their order.

    Args:
        selected: With the runs' boxes.
        annotations: Whose classes the boxes are of.
        images: Folder of the images; without it the boxes stand on a plain ground.
    """
    indices = {name: index for index, name in enumerate(annotations.category_names)}
    return [
        _picture(f"picture-{number}", image, indices, images)
        for number, image in enumerate(selected)
    ]


def _picture(
    key: str, image: GalleryImage, indices: Mapping[str, int], images: Path | None
) -> Picture:
    contents = {"truth": image.truth, **image.detections}
    size, photo = _extent(contents.values()), None
    reason = "the images’ folder is not known: name it by --images"
    if images is not None:
        file = Path(os.path.abspath(images / image.file_name))
        try:
            # What the annotation file names is embedded only where it lies in the images' folder.
            if file.is_relative_to(os.path.abspath(images)):
                # A pipe would be waited for, without end.
                check_regular(file)
                size, photo = _photo(file)
            else:
                reason = f"{image.file_name} lies outside {images}"
        except FileNotFoundError:
            reason = f"{file} is not there"
        except Exception:  # The formats' readers raise anything.
            reason = f"{file} is no image that can be read"
    panels = [_panel(title, boxes, indices) for title, boxes in contents.items()]
    note = "" if photo else f"No photo: {reason}."
    return Picture(key, image.file_name, *size, photo, note, panels)


def _photo(file: Path) -> tuple[tuple[int, int], str]:
    """The size of an image in pixels, and a small copy as a data URI."""
    with Image.open(file) as source:
        size = source.size
        source.draft("RGB", (_PHOTO_SIDE, _PHOTO_SIDE))
        small = source.convert("RGB")
    small.thumbnail((_PHOTO_SIDE, _PHOTO_SIDE))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=_PHOTO_QUALITY, optimize=True)
    return size, f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _extent(contents: Iterable[Sequence[GalleryBox]]) -> tuple[float, float]:
    boxes = [box.box for of_panel in contents for box in of_panel]
    right = max((x + width for x, _, width, _ in boxes), default=1.0)
    bottom = max((y + height for _, y, _, height in boxes), default=1.0)
    return max(right, 1.0), max(bottom, 1.0)


def _panel(title: str, boxes: Sequence[GalleryBox], indices: Mapping[str, int]) -> Panel:
    ordered = sorted(boxes, key=lambda box: (box.kind in _LABELLED, -box.box[2] * box.box[3]))
    counts = Counter(box.kind for box in boxes)
    summary = ", ".join(f"{count} {_plural(kind, count)}" for kind, count in counts.most_common())
    return Panel(title, summary or "nothing", [_mark(box, indices) for box in ordered])


def _plural(kind: str, count: int) -> str:
    return f"{kind}s" if kind in ("object", "true positive") and count != 1 else kind


def _mark(box: GalleryBox, indices: Mapping[str, int]) -> Mark:
    label = box.category if box.score is None else f"{box.category} {box.score:.2f}"
    x, y, width, height = (round(value, 1) for value in box.box)
    kind = box.kind.replace(" ", "-")
    return Mark((x, y, width, height), indices[box.category], kind, label, f"{label}, {box.kind}")
