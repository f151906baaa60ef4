"""YOLO detectors: where their backbone ends, and how a trained one becomes a teacher."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.engine.model import Model
from ultralytics.nn.tasks import DetectionModel

from mmkd.checkpoint import LoadReport, read_weights
from mmkd.engine.frozen_teacher import FrozenTeacher, TeacherFiles, taps_of
from mmkd.engine.input_conversion import ImageFormat, KnownFormat, conversion_between
from mmkd.engine.levels import HEAD_BRANCHES, Levels
from mmkd.engine.ultralytics.architecture import (
    build_detector,
    check_modules,
    head_of,
    is_original,
)
from mmkd.engine.ultralytics.checkpoint_files import check_source, execute, local_file
from mmkd.errors import InputError, check_keys, naming
from mmkd.features import find_module
from mmkd.input_files import sha256
from mmkd.terms import Term

__all__ = [
    "YOLO_FORMAT",
    "YOLOTeacher",
    "backbone_outputs",
    "box_outputs",
    "class_outputs",
    "named_outputs",
    "neck_outputs",
    "run_detector",
]

# RGB images between 0 and 1.
YOLO_FORMAT = ImageFormat(std=(255.0, 255.0, 255.0), swapped=True)


def backbone_outputs(model: Any) -> list[str]:
    """The modules by which a YOLO model's backbone leaves its features, from fine to coarse.

    They are the backbone's layers (as the model's own definition divides it) that the head reads,
    and its last layer: in YOLOv5 ``model.4``, ``model.6`` and ``model.9``, of stride 8, 16, 32.

    Raises:
        ValueError: The model has no definition that names a backbone.
    """
    definition = getattr(model, "yaml", None)
    if not isinstance(definition, dict) or not definition.get("backbone"):
        raise ValueError(
            f"{type(model).__name__} has no definition that names its backbone: "
            "name a module instead of 'backbone'"
        )
    length = len(definition["backbone"])
    read = {index for index in model.save if index < length}
    return [f"model.{index}" for index in sorted(read | {length - 1})]


def neck_outputs(model: Any) -> list[str]:
    """The modules whose outputs the detection head reads, from fine to coarse: in YOLOv5
    ``model.17``, ``model.20`` and ``model.23``, of stride 8, 16, 32.

    Raises:
        ValueError: The model's last layer is no such head.
    """
    layers = getattr(model, "model", None)
    read = getattr(layers[-1], "f", None) if isinstance(layers, nn.Sequential) else None
    if not isinstance(read, list):
        raise ValueError(
            f"{type(model).__name__} has no detection head that reads several levels: name a "
            "module instead of 'neck'"
        )
    return [f"model.{index}" for index in read]


def class_outputs(model: Any) -> list[str]:
    """The modules of the head that return class logits, a level each, from fine to coarse.

    Raises:
        ValueError: The model's last layer is no such head.
    """
    return _head_outputs(model, "cv3", "class logits")


def box_outputs(model: Any) -> list[str]:
    """The modules of the head that return the distributions of boxes' sides, a level each.

    Raises:
        ValueError: The model's last layer is no such head, or predicts the sides themselves.
    """
    outputs = _head_outputs(model, "cv2", "distributions of boxes' sides")
    if model.model[-1].reg_max == 1:
        raise ValueError(
            f"the head of {Path(str(model.yaml.get('yaml_file', 'this model'))).stem} predicts no "
            "distributions of boxes' sides (YOLO26, reg_max 1): YOLOv5, YOLOv8 and YOLO11 of "
            "Ultralytics do"
        )
    return outputs


def _head_outputs(model: Any, name: str, what: str) -> list[str]:
    layers: Any = getattr(model, "model", None)
    branch = getattr(layers[-1], name, None) if isinstance(layers, nn.Sequential) else None
    if not isinstance(branch, nn.ModuleList):
        raise ValueError(
            f"{type(model).__name__} has no detection head of Ultralytics' that returns {what}"
        )
    return [f"model.{len(layers) - 1}.{name}.{index}" for index in range(len(branch))]


_OUTPUTS = {
    "backbone": backbone_outputs,
    "neck": neck_outputs,
    "head.classes": class_outputs,
    "head.boxes": box_outputs,
}
_TWO_STAGE = ("rpn.objectness", "roi.classes")


def named_outputs(model: nn.Module, path: str) -> list[str] | None:
    """The modules that ``'backbone'``, ``'neck'``, ``'head.classes'`` and ``'head.boxes'`` stand
    for, by the model's own definition; None for any other path, and where the model has a module of
    that name.

    Raises:
        ValueError: No such backbone, neck or head; ``'rpn.objectness'``, ``'roi.classes'`` or a
            convolution of the head for every level, which no such detector has.
    """
    if path in _TWO_STAGE:
        raise ValueError(
            f"{type(model).__name__} has no {path!r}, which are logits of MMDetection's two-stage "
            "detectors, such as Faster R-CNN; of a YOLO take 'head.classes'"
        )
    if path.startswith(HEAD_BRANCHES):
        raise ValueError(
            f"{type(model).__name__} has no convolution {path!r} that serves every level: CrossKD "
            "looks through those of MMDetection's GFL, RetinaNet, FCOS and ATSS; of a YOLO take "
            "'head.classes'"
        )
    return None if path not in _OUTPUTS or hasattr(model, path) else _OUTPUTS[path](model)


def run_detector(model: nn.Module, images: Tensor, context: Any = None) -> Any:
    """A forward pass of a detector of Ultralytics'."""
    return model(images)


@dataclass(frozen=True)
class YOLOTeacher:
    """A trained detector of Ultralytics' or of the YOLOv5 repository's.

    Args:
        where: The setting that errors name.
        source: A ``.pt`` file, its address, or a name that Ultralytics downloads
            (``'yolov5m.pt'``); or a model that is loaded already.
        allow_pickle: Whether a file that cannot be read as data may execute code.
    """

    where: str
    source: str | Path | nn.Module
    allow_pickle: bool = False

    @classmethod
    def parse(cls, where: str, settings: Mapping[str, Any]) -> YOLOTeacher:
        """Reads ``dict(yolo=...)``.

        Raises:
            ValueError: An unknown key.
        """
        check_keys(where, settings, ("yolo", "allow_pickle"))
        return cls(where, settings["yolo"], bool(settings.get("allow_pickle", False)))

    def check(self) -> None:
        """See :class:`mmkd.engine.teachers.TeacherSettings`. A file may also be a name that
        Ultralytics downloads."""
        if isinstance(self.source, nn.Module):
            return
        with naming(self.where):
            check_source(str(self.source))

    def files(self) -> TeacherFiles | str:
        """See :class:`mmkd.engine.teachers.TeacherSettings`."""
        if isinstance(self.source, nn.Module):
            return "it is no checkpoint file"
        try:
            return TeacherFiles(local_file(str(self.source)))
        except (FileNotFoundError, ValueError) as error:
            return str(error)

    def build(
        self,
        terms: Sequence[Term],
        student_format: ImageFormat | None,
        blank: Tensor,
        dtype: torch.dtype | None = None,
    ) -> tuple[FrozenTeacher, list[Term]]:
        """See :class:`mmkd.engine.teachers.TeacherSettings`."""
        model, report, origin = self._load()
        if not isinstance(model, DetectionModel):
            raise InputError.at(
                self.where,
                f"expected a detector, found {type(model).__name__} "
                f"(task {getattr(model, 'task', 'unknown')!r}) in {origin}. Give a detector's "
                "checkpoint, or another network as dict(module=...).",
            )
        size = (blank.shape[2], blank.shape[3])
        levels = Levels(model, lambda: model(torch.zeros(1, 3, *size)), size, named_outputs)
        resolved = [self._resolved(term, model, levels) for term in terms]
        taps = taps_of(self.where, resolved)
        teacher = FrozenTeacher(
            self.where,
            _in_channels_last(_folded(model, [path for _, path in taps]), blank.device),
            taps,
            conversion_between(self.where, student_format, YOLO_FORMAT),
            blank,
            dtype=dtype,
        )
        if report is not None:
            with naming(self.where):
                report.require(teacher.ran)
                check_modules(model, report.source, teacher.ran)
            teacher.loaded = report
        teacher.introduce(
            f"{type(model).__name__} of {len(model.names)} classes from {origin}",
            KnownFormat(YOLO_FORMAT, "as Ultralytics prepares images"),
        )
        return teacher, resolved

    def _resolved(self, term: Term, model: nn.Module, levels: Levels) -> Term:
        with naming(f"{self.where.partition(' ')[0]} {term.key}.teacher"):
            found = levels.of_scores(term).with_teacher_taps(levels.find)
            for path in found.teacher_paths:
                find_module(model, path)
        return found

    def _load(self) -> tuple[nn.Module, LoadReport | None, str]:
        """The model; what was loaded, where it was built from a file; where it comes from."""
        if isinstance(self.source, nn.Module):
            network = self.source.model if isinstance(self.source, Model) else self.source
            return copy.deepcopy(network).float(), None, "memory"
        self.check()
        with naming(self.where):
            file = local_file(str(self.source))
            try:
                model, report = build_detector(read_weights(file))
                return model, report, f"{report}{_of_the_head(report)}"
            except ValueError:
                if not self.allow_pickle:
                    raise
            model = execute(file)
            return model, None, f"{file} (sha256 {sha256(file)})"


def _of_the_head(report: LoadReport) -> str:
    """What of a head with anchors was left out."""
    network = report.source.network
    if network is None or not is_original(network):
        return ""
    head = head_of(network)
    left = sum(name.startswith(f"{head}.") for name in report.unexpected)
    return f"; its head {head} works with anchors, its {left} tensors have no place here"


def _in_channels_last(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with weights laid out as convolutions like them: a fifth faster on a CPU, and the
    same values to rounding; but wrong values on Apple's GPUs, where they stay as they are."""
    if device.type != "mps":
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def _folded(model: DetectionModel, taps: Sequence[str]) -> nn.Module:
    """The model with BatchNorm folded into its convolutions, unless a tap lies within a fold."""
    for path in taps:
        while path := path.rpartition(".")[0]:
            module = find_module(model, path)
            if hasattr(module, "forward_fuse") or hasattr(module, "fuse"):
                return model
    return copy.deepcopy(model).eval().fuse(verbose=False)
