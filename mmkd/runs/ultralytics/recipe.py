"""Recipes of Ultralytics' detectors, scored as every other detector is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultralytics import YOLO
from ultralytics.nn.tasks import yaml_model_load
from ultralytics.utils import DEFAULT_CFG, LOGGER
from ultralytics.utils.torch_utils import select_device, unwrap_model

from mmkd.custom_imports import import_custom
from mmkd.engine.ultralytics.resume import CHECKPOINT_KEY, ExactResume, read_checkpoint
from mmkd.engine.ultralytics.train import prepare
from mmkd.errors import InputError
from mmkd.evaluation.coco import evaluate_detections
from mmkd.runs.fingerprint import (
    ImageFiles,
    image_names,
    named_modules,
    with_networks_read,
    with_terms,
)
from mmkd.runs.recipe import Trained
from mmkd.runs.record import TrainingRecord
from mmkd.runs.ultralytics.detection import detect
from mmkd.work_dirs.environment import describe_environment
from mmkd.work_dirs.run_files import DETECTIONS

__all__ = ["YOLORecipe", "log_to_stdout"]

# What differs between two runs of one setting without changing what they compute: names, and the
# places of files whose content counts by itself.
_IRRELEVANT = (
    "project",
    "name",
    "exist_ok",
    "plots",
    "verbose",
    "save_dir",
    "model",
    "data",
    "seed",
    "dynamics",
)


@dataclass(frozen=True)
class YOLORecipe:
    """A training of a YOLO detector. See :class:`mmkd.runs.recipe.Recipe`.

    Args:
        settings: As :func:`mmkd.engine.ultralytics.train.read_settings` returns them.
        work_dir: Where everything of the run goes.
        training_annotations: COCO annotations of the training images.
        training_images: Folder of these.
        annotations: COCO annotations of the images on which it is scored.
        images: Folder of these.
    """

    settings: Mapping[str, Any]
    work_dir: Path
    training_annotations: Path
    training_images: Path
    annotations: Path
    images: Path

    @property
    def seed(self) -> int:
        """Of the run."""
        return int(self.settings.get("seed", 0))

    @property
    def iterations(self) -> int:
        """Training iterations, from the annotation file; as if the batch were one image where
        Ultralytics chooses it."""
        epoch = self._epoch_length or self._num_images
        return epoch * self.settings.get("epochs", DEFAULT_CFG.epochs)

    @property
    def _epoch_length(self) -> int | None:
        """In iterations; None where Ultralytics chooses the batch by the GPU's memory."""
        batch = self.settings.get("batch", DEFAULT_CFG.batch)
        return -(-self._num_images // batch) if batch >= 1 else None

    @property
    def _num_images(self) -> int:
        return len(image_names(self.training_annotations))

    @property
    def checkpoint(self) -> str:
        """Where the run leaves its weights: those of the last epoch, as chosen by no score."""
        return str(self.work_dir / "weights" / "last.pt")

    def content(self) -> dict[str, Any]:
        """The settings, less what only names the run; the network as its definition states it."""
        content = {k: v for k, v in self.settings.items() if k not in _IRRELEVANT}
        content["teacher"] = with_networks_read(content.get("teacher"))
        if content["teacher"] is not None:
            content = with_terms(content)
        return {**content, "network": _definition(str(self.settings["model"]))}

    def files(self) -> dict[str, Path | ImageFiles]:
        """Annotations and images, weights to start from, and the user's own modules."""
        training, scored = self.training_annotations, self.annotations
        model = Path(str(self.settings["model"]))
        return {
            "training annotations": training,
            "annotations": scored,
            "training images": ImageFiles(self.training_images, image_names(training)),
            "images": ImageFiles(self.images, image_names(scored)),
            **({"model": model} if model.suffix == ".pt" else {}),
            **named_modules(import_custom(self.settings.get("custom_imports"))),
        }

    def train(self, on_iteration: Callable[[], None], record: TrainingRecord) -> Trained:
        """Trains, then detects on the images with the last weights and scores what they find.

        Ultralytics' own ``distill_model`` begins again where it was interrupted; so does whatever
        did not finish its first epoch. With data loader workers, the augmentations of a resumed
        run differ from those of an uninterrupted one.
        """
        checkpoint, detections = Path(self.checkpoint), self.work_dir / DETECTIONS
        epoch = self._epoch_length
        if not record.is_started:
            # Left by another run.
            checkpoint.unlink(missing_ok=True)
        with log_to_stdout():
            if not _is_finished(checkpoint):
                self._run(on_iteration, record)
            trained = YOLO(checkpoint)
            detect(
                trained,
                self.annotations,
                self.images,
                detections,
                self.settings.get("imgsz", DEFAULT_CFG.imgsz),
                checkpoint,
            )
        return Trained(
            parameters=sum(p.numel() for p in trained.model.parameters()),
            training_seconds=record.training_seconds,
            checkpoint=self.checkpoint,
            scores=evaluate_detections(self.annotations, detections).as_dict(),
            iterations=epoch and epoch * len(record.epoch_seconds),
            annotations=str(self.annotations),
            images=str(self.images),
            initial_weights=record.initial_weights,
            environment=describe_environment(
                select_device(self.settings.get("device") or "", verbose=False).type
            ),
        )

    def _run(self, on_iteration: Callable[[], None], record: TrainingRecord) -> None:
        settings = dict(self.settings)
        goes_on = CHECKPOINT_KEY in _entries(Path(self.checkpoint))
        if goes_on:
            settings["model"] = self.checkpoint
        model, arguments = prepare(settings)
        _keep(record, model)
        model.add_callback("on_train_batch_end", lambda trainer: on_iteration())
        if settings["teacher"] is None and not settings.get("distill_model"):
            arguments["trainer"] = _PlainTrainer
        if goes_on:
            where = dict(resume=True, save_dir=str(self.work_dir))
        else:
            where = dict(project=str(self.work_dir.parent.resolve()), name=self.work_dir.name)
        model.train(**{**arguments, **where, "exist_ok": True})


class _PlainTrainer(ExactResume):
    """Stock training, but for being resumed exactly."""


def _entries(checkpoint: Path) -> dict[str, Any]:
    if not checkpoint.is_file():
        return {}
    try:
        return read_checkpoint(checkpoint)
    except InputError as error:
        raise InputError(f"{error}: remove it, and its run begins again") from error


def _is_finished(checkpoint: Path) -> bool:
    """Whether its training is over: its file keeps no optimizer; or is that of the last epoch,
    where Ultralytics' own ``distill_model`` leaves nothing to go on from."""
    content = _entries(checkpoint)
    if not content or CHECKPOINT_KEY in content:
        return False
    return content["optimizer"] is None or content["epoch"] + 1 == content["train_args"]["epochs"]


def _keep(record: TrainingRecord, model: YOLO) -> None:
    """Keeps the record up to date while the model trains."""

    def start(trainer: Any) -> None:
        if trainer.start_epoch == 0:
            network = unwrap_model(trainer.model)
            # With distill_model, Ultralytics trains the two networks as one.
            record.start(getattr(network, "student_model", network))

    model.add_callback("on_train_start", start)
    model.add_callback("on_train_epoch_start", lambda trainer: record.start_epoch(trainer.epoch))
    model.add_callback("on_train_epoch_end", lambda trainer: record.end_epoch())


def _definition(model: str) -> dict[str, Any]:
    """What Ultralytics reads of a definition, scale included, but not where it lies.

    Weights to start from are no definition; they count by their content.
    """
    if Path(model).suffix == ".pt":
        return {}
    return {k: v for k, v in yaml_model_load(model).items() if k != "yaml_file"}


@contextmanager
def log_to_stdout() -> Any:
    """Ultralytics' logger keeps the stream that was there when it was made."""
    handlers = [each for each in LOGGER.handlers if hasattr(each, "setStream")]
    streams = [each.setStream(sys.stdout) for each in handlers]
    try:
        yield
    finally:
        for handler, stream in zip(handlers, streams, strict=True):
            if stream is not None:
                handler.setStream(stream)
