"""Recipes of Ultralytics' detectors, scored as every other detector is."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultralytics import YOLO
from ultralytics.nn.tasks import yaml_model_load
from ultralytics.utils import LOGGER

from mmkd.engine.ultralytics.train import prepare
from mmkd.evaluation.coco import evaluate_detections
from mmkd.evaluation.runs import DETECTIONS, Trained

__all__ = ["YOLORecipe", "detect"]

# What differs between two runs of one setting without changing what they compute: names, and the
# places of files whose content counts by itself.
_IRRELEVANT = ("project", "name", "exist_ok", "plots", "verbose", "save_dir", "model", "data")
_TEACHERS = ("teacher", "distill_model")


@dataclass(frozen=True)
class YOLORecipe:
    """A training of a YOLO detector. See :class:`mmkd.evaluation.runs.Recipe`.

    Args:
        settings: As :func:`mmkd.engine.ultralytics.train.read_settings` returns them.
        work_dir: Where everything of the run goes.
        training_annotations: COCO annotations of the training images.
        annotations: COCO annotations of the images on which it is scored.
        images: Folder of these.
    """

    settings: Mapping[str, Any]
    work_dir: Path
    training_annotations: Path
    annotations: Path
    images: Path

    @property
    def seed(self) -> int:
        """Of the run."""
        return int(self.settings.get("seed", 0))

    @property
    def iterations(self) -> int:
        """Training iterations, from the annotation file."""
        images = len(json.loads(self.training_annotations.read_text())["images"])
        return -(-images // self.settings["batch"]) * self.settings["epochs"]

    @property
    def checkpoint(self) -> str:
        """Where the run leaves its weights: those of the last epoch, as chosen by no score."""
        return str(self.work_dir / "weights" / "last.pt")

    def content(self) -> dict[str, Any]:
        """The settings, less what only names the run; the network as its definition states it."""
        content = {k: v for k, v in self.settings.items() if k not in _IRRELEVANT}
        content |= {k: bool(content.get(k)) for k in _TEACHERS}
        return {**content, "network": _definition(str(self.settings["model"]))}

    def files(self) -> list[Path]:
        """Annotations, and the teacher."""
        teachers = [self.settings.get(key) for key in _TEACHERS]
        own = [Path(each) for each in teachers if isinstance(each, str)]
        return [self.training_annotations, self.annotations, *own]

    def train(self, on_iteration: Callable[[], None]) -> Trained:
        """Trains, then detects on the images with the last weights and scores what they find."""
        model, arguments = prepare(self.settings)
        clock = _Clock()
        model.add_callback("on_train_epoch_start", clock.start)
        model.add_callback("on_train_epoch_end", clock.stop)
        model.add_callback("on_train_batch_end", lambda trainer: on_iteration())
        detections = self.work_dir / DETECTIONS
        where = dict(project=str(self.work_dir.parent.resolve()), name=self.work_dir.name)
        with _log_to_stdout():
            model.train(**{**arguments, **where, "exist_ok": True})
            trained = YOLO(self.checkpoint)
            detect(trained, self.annotations, self.images, detections, arguments["imgsz"])
        return Trained(
            parameters=sum(p.numel() for p in trained.model.parameters()),
            training_seconds=clock.seconds,
            checkpoint=self.checkpoint,
            scores=evaluate_detections(self.annotations, detections).as_dict(),
        )


def _definition(model: str) -> dict[str, Any]:
    """What Ultralytics reads of a definition, scale included, but not where it lies."""
    return {k: v for k, v in yaml_model_load(model).items() if k != "yaml_file"}


class _Clock:
    """Adds up the time spent in training epochs."""

    seconds = 0.0

    def start(self, trainer: Any) -> None:
        self._start = time.perf_counter()

    def stop(self, trainer: Any) -> None:
        self.seconds += time.perf_counter() - self._start


@contextmanager
def _log_to_stdout() -> Any:
    """Ultralytics' logger keeps the stream that was there when it was made."""
    handlers = [each for each in LOGGER.handlers if hasattr(each, "setStream")]
    streams = [each.setStream(sys.stdout) for each in handlers]
    try:
        yield
    finally:
        for handler, stream in zip(handlers, streams, strict=True):
            if stream is not None:
                handler.setStream(stream)


def detect(
    model: YOLO, annotations: Path, images: Path, out: Path, image_size: int, batch: int = 16
) -> None:
    """Writes a detector's boxes in COCO's result format.

    Args:
        model: Its class k is the annotations' k-th category, in the order of their ids.
        annotations: COCO annotation file.
        images: Folder of its images.
        out: JSON file to write: boxes ``(x, y, width, height)`` in pixels of the image.
        image_size: To which the longer side is scaled.
        batch: Images at a time.

    Raises:
        ValueError: Other class names than the annotations'.
    """
    truth = json.loads(Path(annotations).read_text())
    categories = sorted(truth["categories"], key=lambda each: each["id"])
    expected, found = [str(each["name"]) for each in categories], list(model.names.values())
    if expected != found:
        raise ValueError(f"{annotations} holds the classes {expected}, the detector {found}")
    boxes = []
    for start in range(0, len(truth["images"]), batch):
        part = truth["images"][start : start + batch]
        results = model.predict(
            [str(images / image["file_name"]) for image in part],
            conf=0.001,
            iou=0.7,
            max_det=300,
            imgsz=image_size,
            verbose=False,
            save=False,
        )
        for image, result in zip(part, results, strict=True):
            for x1, y1, x2, y2, score, label in result.boxes.data.tolist():
                boxes.append(
                    dict(
                        image_id=image["id"],
                        category_id=categories[int(label)]["id"],
                        bbox=[x1, y1, x2 - x1, y2 - y1],
                        score=score,
                    )
                )
    out.write_text(json.dumps(boxes))
