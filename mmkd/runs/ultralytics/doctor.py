"""Examines the distillation of a training of Ultralytics': a few real iterations, of which nothing
stays."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import callbacks
from ultralytics.utils.nms import non_max_suppression
from ultralytics.utils.torch_utils import unwrap_model

from mmkd.distillation import Distillation
from mmkd.doctor.examination import Costs, Examination, TeacherFinding
from mmkd.doctor.level_map import LevelMap, first_that_fits, level_map
from mmkd.doctor.watch import Watch, forget
from mmkd.engine.random_state import preserved_random_state
from mmkd.engine.ultralytics.spread_images import spread_batches, spread_images
from mmkd.engine.ultralytics.train import OWN_KEYS, prepare
from mmkd.engine.ultralytics.trainer import DistillTrainer
from mmkd.errors import InputError
from mmkd.numerics import as_weights
from mmkd.runs.accuracy import Found, average_precision, cannot_be_told
from mmkd.runs.examined_teacher import examined_teacher, other_classes
from mmkd.runs.library_output import output_to
from mmkd.runs.ultralytics.detection import quiet
from mmkd.targets import Targets

__all__ = ["examine", "examine_levels"]

# On which a teacher's accuracy is looked at.
_IMAGES, _CHUNK = 32, 8
# Of images, on which levels are looked at.
_BATCHES, _BATCH = 8, 8


def examine(settings: Mapping[str, Any], iterations: int = 10) -> Examination:
    """Trains the student for a few iterations with its terms, and as many without.

    Args:
        settings: Of :func:`mmkd.engine.ultralytics.train.read_settings`. Nothing is written but in
            a temporary folder, and Ultralytics' caches of labels.
        iterations: Of either training, beside a warm-up of ten.

    Raises:
        InputError: Settings without a teacher, or with which no training begins.
        RuntimeError: A term that cannot be trained, as in a training.
    """
    own = _settings_of(settings)
    # First, and forgotten: what it holds on the device is not the other's.
    alone = {**own, "teacher": None, **dict.fromkeys(OWN_KEYS)}
    plain = _looked_at(alone, iterations).watch.costs()
    forget()
    return _looked_at(own, iterations).examination(plain)


def examine_levels(settings: Mapping[str, Any]) -> LevelMap:
    """Compares every level of the student, as its training begins, with every one of the teacher.

    Args:
        settings: As for :func:`examine`.

    Raises:
        InputError: As there.
    """
    own = _settings_of(settings)

    def look(terms: dict[str, Any]) -> LevelMap:
        found: list[LevelMap] = []

        def begin(trainer: Any) -> None:
            student = unwrap_model(trainer.model)
            probes = spread_batches(trainer, student, "train", _BATCHES, _BATCH)
            found.append(level_map(trainer.distillation, probes))
            raise _Enough

        _run({**own, "terms": terms}, on_train_start=begin)
        return found[0]

    return first_that_fits(look)


def _settings_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    if settings.get("teacher") is None:
        raise InputError.at("teacher", "expected one to look at, found none: give teacher=FILE")
    device = settings.get("device")
    if len(device) > 1 if isinstance(device, list | tuple) else "," in str(device):
        raise InputError.at("device", f"expected one to look at, got {device}: give device=0")
    return {key: value for key, value in settings.items() if key not in ("resume", "dynamics")}


class _Enough(Exception):
    """Ends a training from within."""


def _looked_at(settings: Mapping[str, Any], iterations: int) -> _Listener:
    """The first iterations of a training."""
    listener = _Listener(iterations)
    _run(
        settings,
        on_train_start=listener.begin,
        on_train_batch_start=listener.step_begins,
        on_train_batch_end=listener.step_ends,
    )
    return listener


def _run(settings: Mapping[str, Any], **listeners: Callable[[Any], None]) -> None:
    """Until one of the listeners has enough."""
    with TemporaryDirectory() as folder:
        changes = dict(project=folder, name="run", plots=False, save=False, val=False)
        log = Path(folder) / "output.log"
        model, arguments = prepare({**settings, **changes, "verbose": False})
        for event, function in listeners.items():
            model.add_callback(event, function)
        with quiet(), _without_trackers(), output_to(log), suppress(_Enough):
            model.train(**arguments)


@contextmanager
def _without_trackers() -> Iterator[None]:
    """Services that keep a record of runs see nothing of these."""
    name = "add_integration_callbacks"
    stock = getattr(callbacks, name)
    setattr(callbacks, name, lambda trainer: None)
    try:
        yield
    finally:
        setattr(callbacks, name, stock)


class _Listener:
    """Tells a watch of the first iterations, and ends the training then."""

    def __init__(self, iterations: int) -> None:
        self.watch = Watch(iterations)
        self._teachers: tuple[TeacherFinding, ...] = ()

    def begin(self, trainer: Any) -> None:
        """Listens to the student and the terms."""
        self._trainer = trainer
        student = unwrap_model(trainer.model)
        is_distilled = isinstance(trainer, DistillTrainer)
        self._distillation = trainer.distillation if is_distilled else None
        epoch = len(trainer.train_loader)
        self.watch.begin(student, self._distillation, trainer.epochs * epoch, epoch)
        # However short it is, as much of it is looked at.
        trainer.epochs = sys.maxsize

    def step_begins(self, trainer: Any) -> None:
        """Starts the clock, after the data have come."""
        self.watch.step_begins()

    def step_ends(self, trainer: Any) -> None:
        """Stops it; the last one ends the training."""
        is_first = self.watch.is_first
        is_enough = self.watch.step_ends()
        if is_first and self._distillation is not None:
            self._examine_teachers(self._distillation)
        if is_enough:
            raise _Enough

    def _examine_teachers(self, distillation: Distillation) -> None:
        """By their accuracy: the loss of a YOLO depends on how many anchors it gives to an object,
        and is small for one that sees none."""
        with preserved_random_state():
            student = unwrap_model(self._trainer.model)
            probe = spread_images(self._trainer, student, "val", _IMAGES)
        images, classes = (probe.inputs, None), self._trainer.data["nc"]
        self._teachers = tuple(
            examined_teacher(
                distillation,
                name,
                self.watch.parameters,
                images,
                None,
                images,
                lambda network, given: _accuracy_of(network, given, probe.targets, classes),
                unchecked=lambda network: _unchecked(network, classes),
            )
            for name in distillation.teachers
        )

    def examination(self, plain: Costs) -> Examination:
        """What was found, beside the costs of the student alone."""
        share = self._trainer._clock.share
        return self.watch.examination(
            plain, self._teachers, None, None if share is None else float(share)
        )


def _unchecked(network: Any, classes: int) -> str:
    if isinstance(network, DetectionModel) and network.model[-1].nc != classes:
        return other_classes(network.model[-1].nc, classes)
    return cannot_be_told()


@torch.no_grad()
def _accuracy_of(network: Any, images: Tensor, targets: Targets, classes: int) -> float | None:
    """COCO's mAP in percent; None for another kind of network, or other classes."""
    if not isinstance(network, DetectionModel) or network.model[-1].nc != classes:
        return None
    found: list[Found] = []
    try:
        # In the precision in which it teaches.
        for chunk in as_weights(network, images).split(_CHUNK):
            predicted = network(chunk)
            predicted = predicted[0] if isinstance(predicted, tuple) else predicted
            boxes = non_max_suppression(
                predicted.float(),
                conf_thres=0.001,
                iou_thres=0.7,
                multi_label=True,
                end2end=getattr(network, "end2end", False),
            )
            found += [Found(each[:, :4], each[:, 4], each[:, 5]) for each in boxes]
    except torch.OutOfMemoryError:
        return None
    return average_precision(targets.boxes, found)
