"""What a user of Ultralytics writes: settings, attached to a model."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ultralytics.engine.model import Model
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import DEFAULT_CFG

from mmkd.dynamics import DynamicsSettings
from mmkd.engine.probe import ProbeSize
from mmkd.engine.settings import DistillSettings
from mmkd.engine.teachers import FAMILIES, TeacherSettings
from mmkd.engine.ultralytics.resume import check_resume
from mmkd.engine.ultralytics.teacher import YOLO_FORMAT, named_outputs, run_detector
from mmkd.engine.ultralytics.trainer import (
    OWNER,
    Attached,
    DistillTrainer,
    attached_to,
    distilling,
)
from mmkd.errors import InputError, InputTypeError, TermError
from mmkd.terms import Term

__all__ = ["DistillCallback", "try_out"]


class DistillCallback(Attached):
    """Adds distillation terms to the losses of an Ultralytics detector while it trains.

    ``DistillCallback(teacher="yolov5m.pt").attach(model)``, then ``model.train(...)`` as always.
    The checkpoints are those of a plain run; an interrupted ``last.pt`` holds one more key,
    ``mmkd``, from which ``model.train(resume=True)`` goes on (attach the callback again).

    Args:
        teacher: A ``.pt`` file or a name that Ultralytics knows, an Ultralytics model, any
            torch module, or a dict: ``dict(yolo=file)``, ``dict(config=..., checkpoint=...)``
            for an MMDetection or MMPretrain model, ``dict(module=..., mean=..., std=...,
            order='rgb')`` for a module with its own input normalisation (of images from 0 to
            255). For several teachers, a dict of such values by name.
        terms: Name to settings, as in :class:`mmkd.DistillHook`. ``student`` and ``teacher``
            name modules (``'model.9'``); ``'backbone'`` stands for the outputs of the model's own
            backbone definition, the last being ``level=-1``, and ``'neck'`` for those that its head
            reads, the finest being ``level=0``. None: the neck where the teacher has one too, else
            the backbone; :attr:`terms` tells of the latter until the training begins.
        probe_size: Height and width in pixels, or one number for both, of the blank image on
            which taps and channels are checked. None: the training's ``imgsz``.
        dynamics: What is recorded of each term every so many epochs, into ``dynamics.csv`` and
            Ultralytics' loggers: ``dict(images=16, interval=1)``, or True for what is usual; see
            :class:`mmkd.DynamicsHook`.

    Each term is a column in the progress line, in ``results.csv`` and in the plots (``kd_loss``;
    with several terms ``kd_<term>_loss``), weighted; ``distill/<term>`` (unweighted),
    ``distill/ratio`` (distillation to task loss) and ``distill/teacher_time_share`` (of the
    step's time) are columns of ``results.csv``. All are means over the epoch.

    Raises:
        ValueError, TypeError: An unknown key or value.
    """

    def __init__(
        self,
        teacher: Any,
        terms: Mapping[str, Mapping[str, Any]] | None = None,
        probe_size: ProbeSize | None = None,
        dynamics: Mapping[str, int] | bool | None = None,
    ) -> None:
        recorded = None
        if dynamics is not None and dynamics is not False:
            recorded = DynamicsSettings.parse(f"{OWNER} dynamics.", dynamics)
        super().__init__(
            DistillSettings.parse(OWNER, _as_settings(teacher), terms, probe_size), recorded
        )

    @property
    def teachers(self) -> dict[str, TeacherSettings]:
        """Where the teachers come from, by name."""
        return dict(self.settings.teachers)

    @property
    def terms(self) -> list[Term]:
        """What is compared, with taps as they were given."""
        return list(self.settings.terms)

    def attach(self, model: Model) -> Model:
        """Makes ``model.train`` distil, until :meth:`detach`.

        Args:
            model: A ``YOLO`` detector.

        Raises:
            TypeError: Something else.
            ValueError: It has a distillation attached already.
            FileNotFoundError: The teacher's file does not exist.
        """
        if not isinstance(model, Model) or model.task != "detect":
            raise InputTypeError.at(
                f"{OWNER}.attach", f"expected a YOLO detector, got {_describe(model)}"
            )
        # RT-DETR, YOLO-World and YOLOE come with trainers of their own.
        if model.task_map["detect"]["trainer"] is not DetectionTrainer:
            raise InputTypeError.at(
                f"{OWNER}.attach", f"expected a YOLO detector, got {type(model.model).__name__}"
            )
        if "train" in vars(model):
            raise InputError.at(
                f"{OWNER}.attach", "this model has a distillation attached: detach it"
            )
        for settings in self.teachers.values():
            settings.check()
        # Ultralytics hands its callbacks on to the processes it starts: so the settings travel.
        model.add_callback("on_train_start", self.on_train_start)
        vars(model).update(train=functools.partial(_train, model), tune=_refuse_to_tune)
        return model

    def detach(self, model: Model) -> None:
        """Takes the distillation off a model again."""
        for functions in model.callbacks.values():
            functions[:] = [each for each in functions if getattr(each, "__self__", None) != self]
        for name in ("train", "tune"):
            vars(model).pop(name, None)


def try_out(model: Model, image_size: int | None = None) -> None:
    """Builds what is attached to a model as its training will, and forgets it: whatever model,
    teacher and terms alone decide shows before a data set is looked at and a folder made.

    Args:
        model: With a callback.
        image_size: The training's ``imgsz``; None for Ultralytics' own.

    Raises:
        ValueError, FileNotFoundError: Something does not fit, naming the setting.
    """
    network, side = model.model, image_size or DEFAULT_CFG.imgsz
    attached_to(model).settings.build(
        network, YOLO_FORMAT, run_detector, lambda: (side, side), named=named_outputs
    )


def _train(model: Model, trainer: type | None = None, **kwargs: Any) -> Any:
    check_resume(model, kwargs.get("resume"))
    return type(model).train(model, trainer=distilling(trainer or DistillTrainer), **kwargs)


def _refuse_to_tune(*args: Any, **kwargs: Any) -> None:
    raise TermError.at(
        OWNER,
        "model.tune() trains in new processes, which would not distil: tune before "
        "attaching, or call model.train() with each setting",
    )


def _as_settings(teacher: Any) -> Any:
    """Ultralytics' own ways of naming a teacher, spelled out."""
    if isinstance(teacher, str | Path):
        return dict(yolo=str(teacher))
    if isinstance(teacher, Model | DetectionModel):
        return dict(yolo=teacher)
    if isinstance(teacher, Mapping) and not set(teacher) & set(FAMILIES):
        return {name: _as_settings(each) for name, each in teacher.items()}
    return teacher


def _describe(model: Any) -> str:
    task = getattr(model, "task", None)
    return type(model).__name__ + (f" (task {task!r})" if task else "")
