"""Accuracy on a few images that are in memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from torch import Tensor

from mmkd.extras import MissingExtraError
from mmkd.targets import Boxes

__all__ = ["Found", "average_precision", "cannot_be_told"]

# COCO's own: no box is larger.
_SIDE = 100_000


class Found(NamedTuple):
    """What a detector finds in an image.

    Args:
        corners: ``[M, 4]``: x1, y1, x2, y2 in pixels of that in which the objects are known.
        scores: ``[M]``.
        classes: ``[M]``, indices from 0.
    """

    corners: Tensor
    scores: Tensor
    classes: Tensor


def average_precision(objects: Sequence[Boxes], found: Sequence[Found]) -> float | None:
    """COCO's mAP in percent, by pycocotools; None without objects, or without the extra 'eval'.

    Args:
        objects: Of each image.
        found: Likewise.
    """
    if cannot_be_told() or not any(len(image.corners) for image in objects):
        return None
    from mmkd.evaluation import evaluate_detections

    kinds = [*(image.classes for image in objects), *(image.classes for image in found)]
    classes = {int(each) for image in kinds for each in image}
    truth = dict(
        images=[
            dict(id=index, width=_SIDE, height=_SIDE, file_name=str(index))
            for index in range(len(objects))
        ],
        categories=[dict(id=each, name=str(each)) for each in sorted(classes)],
        annotations=[
            dict(image_id=index, category_id=int(kind), iscrowd=0, **_box(corners))
            for index, image in enumerate(objects)
            for corners, kind in zip(image.corners.tolist(), image.classes, strict=True)
        ],
    )
    for index, each in enumerate(truth["annotations"]):
        each["id"] = index + 1
    detections = [
        dict(image_id=index, category_id=int(kind), score=float(score), bbox=_box(corners)["bbox"])
        for index, image in enumerate(found)
        for corners, score, kind in zip(
            image.corners.tolist(), image.scores, image.classes, strict=True
        )
    ]
    with TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("truth.json", "found.json")]
        for file, content in zip(files, (truth, detections), strict=True):
            file.write_text(json.dumps(content), encoding="utf-8")
        return evaluate_detections(*files).mAP


def cannot_be_told() -> str:
    """Why :func:`average_precision` tells nothing here; empty where it does."""
    try:
        import mmkd.evaluation  # noqa: F401
    except MissingExtraError as error:
        return str(error)
    return ""


def _box(corners: Sequence[float]) -> dict[str, object]:
    left, top, right, bottom = corners
    width, height = right - left, bottom - top
    return dict(bbox=[left, top, width, height], area=width * height)
