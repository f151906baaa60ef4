"""Detections of a trained YOLO detector's file."""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image
from ultralytics import YOLO
from ultralytics.utils import LOGGER

from mmkd.errors import InputError
from mmkd.runs.ultralytics.recipe import detect

__all__ = ["detect_with_file"]


def detect_with_file(checkpoint: Path, annotations: Path, images: Path, out: Path) -> int:
    """Writes the boxes that a checkpoint finds, at the image size it was trained with.

    Ultralytics' checkpoints are pickled, and loading one executes what is in it.

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
    with _quiet():
        model = _load(checkpoint)
        size = (getattr(model.model, "args", None) or {}).get("imgsz", 640)
        parameters = sum(each.numel() for each in model.model.parameters())
        try:
            detect(model, annotations, images, out, size)
        except InputError as error:
            raise InputError(f"{checkpoint}: {error}") from error
        except Exception as error:  # A damaged image fails in many ways, none of which names it.
            damaged = _first_damaged(annotations, images)
            if damaged is None:
                raise
            raise InputError(
                f"{damaged} cannot be read as an image: replace it, or remove it from {annotations}"
            ) from error
    return parameters


def _first_damaged(annotations: Path, images: Path) -> Path | None:
    """The first of the images that cannot be read."""
    for image in json.loads(annotations.read_text())["images"]:
        file = images / image["file_name"]
        try:
            with Image.open(file) as opened:
                opened.load()
        except Exception:  # The formats' readers raise anything.
            return file
    return None


def _load(checkpoint: Path) -> YOLO:
    try:
        # By its own name, Ultralytics may look for another file ('yolov5mu.pt').
        with TemporaryDirectory() as folder:
            link = Path(folder) / "mmkd_u.pt"
            link.symlink_to(checkpoint.resolve())
            model = YOLO(link)
    except Exception as error:  # A file of another kind fails in any way.
        raise InputError(
            f"{checkpoint} is no checkpoint of Ultralytics' that can be loaded: {error}"
        ) from error
    if model.task != "detect":
        raise InputError(f"{checkpoint}: expected a detector, found the task {model.task!r}")
    return model


@contextmanager
def _quiet() -> Any:
    level = LOGGER.level
    LOGGER.setLevel(logging.ERROR)
    try:
        yield
    finally:
        LOGGER.setLevel(level)
