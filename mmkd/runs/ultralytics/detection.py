"""Detections of a trained YOLO detector's file."""

from __future__ import annotations

import json
import logging
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ultralytics import YOLO
from ultralytics.utils import LOGGER

from mmkd.engine.ultralytics.checkpoint_files import open_model
from mmkd.errors import InputError
from mmkd.runs.ultralytics.validation import validated_boxes

__all__ = ["detect", "detect_with_file", "quiet"]


def detect(
    model: YOLO,
    annotations: Path,
    images: Path,
    out: Path,
    image_size: int,
    name: str | Path = "the detector",
) -> None:
    """Writes a detector's boxes in COCO's result format, as its own validation finds them.

    Args:
        model: Its class k is the annotations' k-th category, in the order of their ids.
        annotations: COCO annotation file.
        images: Folder of its images.
        out: JSON file to write: boxes ``(x, y, width, height)`` in pixels of the image.
        image_size: To which the longer side is scaled.
        name: What errors call the detector.

    Raises:
        InputError: Other class names than the annotations', or an image that cannot be read.
    """
    truth = json.loads(Path(annotations).read_text())
    categories = sorted(truth["categories"], key=lambda each: each["id"])
    expected, found = [str(each["name"]) for each in categories], list(model.names.values())
    if expected != found:
        raise InputError(f"{annotations} holds the classes {expected}, {name} {found}")
    counts = Counter(each["image_id"] for each in truth["annotations"])
    ids = {images / each["file_name"]: each["id"] for each in truth["images"]}
    objects = {file: counts[image_id] for file, image_id in ids.items()}
    boxes: dict[Path, list[dict[str, Any]]] = {}
    for file, detected in validated_boxes(model, objects, image_size):
        boxes[file] = [
            dict(
                image_id=ids[file],
                category_id=categories[int(label)]["id"],
                bbox=[x1, y1, x2 - x1, y2 - y1],
                score=score,
            )
            for x1, y1, x2, y2, score, label in detected.tolist()
        ]
    out.write_text(json.dumps([box for file in ids for box in boxes[file]]))


def detect_with_file(checkpoint: Path, annotations: Path, images: Path, out: Path) -> int:
    """Writes the boxes that a checkpoint's own validation finds, at the image size it was trained
    with.

    Nothing that is pickled in it is executed, unless ``ULTRALYTICS_SAFE_LOAD=0``.

    Args:
        checkpoint: ``.pt`` file of a detector.
        annotations: COCO annotation file.
        images: Folder of its images.
        out: File to write, in COCO's result format.

    Returns:
        The number of the detector's parameters.

    Raises:
        InputError: No detector's file, one of other classes than the annotations', or an image
            that cannot be read.
    """
    with quiet():
        model = _load(checkpoint)
        size = (getattr(model.model, "args", None) or {}).get("imgsz", 640)
        parameters = sum(each.numel() for each in model.model.parameters())
        detect(model, annotations, images, out, size, checkpoint)
    return parameters


def _load(checkpoint: Path) -> YOLO:
    model = open_model(checkpoint)
    if model.task != "detect":
        raise InputError(f"{checkpoint}: expected a detector, found the task {model.task!r}")
    return model


@contextmanager
def quiet() -> Any:
    """Ultralytics tells of nothing but errors."""
    level = LOGGER.level
    LOGGER.setLevel(logging.ERROR)
    try:
        yield
    finally:
        LOGGER.setLevel(level)
