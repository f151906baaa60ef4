"""The ``teacher`` setting of every adapter: one teacher or several, of any family."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from mmkd.engine import torchvision_detectors
from mmkd.engine.frozen_teacher import FrozenTeacher, TeacherFiles, taps_of
from mmkd.engine.input_conversion import ImageFormat, KnownFormat, conversion_between
from mmkd.engine.own_formats import format_of
from mmkd.errors import InputError, InputTypeError, check_keys
from mmkd.terms import Tap, Term

__all__ = [
    "FAMILIES",
    "ModuleTeacher",
    "TeacherSettings",
    "parse_images",
    "parse_teachers",
]

# A family by a key that tells it: its class, imported when it is asked for.
FAMILIES = {
    "yolo": ("mmkd.engine.ultralytics.teacher", "YOLOTeacher"),
    "module": (__name__, "ModuleTeacher"),
    "config": ("mmkd.engine.mmengine.teacher", "MMTeacher"),
    "model": ("mmkd.engine.mmengine.teacher", "MMTeacher"),
    "checkpoint": ("mmkd.engine.mmengine.teacher", "MMTeacher"),
    "allow_pickle": ("mmkd.engine.mmengine.teacher", "MMTeacher"),
}
_ORDERS = ("rgb", "bgr")
_IMAGE_KEYS = ("mean", "std", "order")
_NEUTRAL = {"mean": (0.0,) * 3, "std": (1.0,) * 3}


class TeacherSettings(Protocol):
    """Where one teacher comes from."""

    @classmethod
    def parse(cls, where: str, settings: Mapping[str, Any]) -> TeacherSettings:
        """Reads the setting.

        Args:
            where: Its path, for errors.
            settings: The setting.

        Raises:
            ValueError: An unknown key or value, or one that is missing.
        """

    def check(self) -> None:
        """Raises where it is plain to see that this cannot become a teacher.

        Raises:
            ValueError: A file of another kind.
            FileNotFoundError: Its file is missing.
        """

    def files(self) -> TeacherFiles | str:
        """By which it can be run on its own; or why it cannot be."""

    def build(
        self,
        terms: Sequence[Term],
        student_format: ImageFormat | None,
        blank: Tensor,
        dtype: torch.dtype | None = None,
    ) -> tuple[FrozenTeacher, list[Term]]:
        """The teacher, and its terms with taps that name its modules.

        Args:
            terms: Those that this teacher serves.
            student_format: Of the images that the student's trainer prepares; None if unknown.
            blank: Such an image, ``[1, 3, H, W]``, on the device where to run; it is tried on it.
            dtype: In which to run; None: float32, or as the autocast around it says.

        Raises:
            ValueError: Something of it does not fit, naming the setting.
            FileNotFoundError: A file of it is missing.
        """


@dataclass(frozen=True)
class ModuleTeacher:
    """A teacher that is a module already.

    Args:
        where: The setting that errors name.
        module: With trained weights.
        image_format: Of the images it takes; None: its own, as far as it tells one (see
            :func:`mmkd.engine.own_formats.format_of`), else the student's.
    """

    where: str
    module: nn.Module
    image_format: ImageFormat | None = None

    @classmethod
    def parse(cls, where: str, settings: Mapping[str, Any]) -> ModuleTeacher:
        """Reads ``dict(module=..., mean=..., std=..., order='rgb')``.

        Raises:
            ValueError: An unknown key or value.
        """
        check_keys(where, settings, ("module", *_IMAGE_KEYS))
        module = settings["module"]
        if isinstance(module, DistributedDataParallel | DataParallel):
            module = module.module
        if not isinstance(module, nn.Module):
            raise InputError(f"{where}.module must be a torch module, got {module!r}")
        images = {key: value for key, value in settings.items() if key != "module"}
        return cls(where, module, parse_images(where, images) if images else None)

    def check(self) -> None:
        """See :class:`TeacherSettings`."""

    def files(self) -> str:
        """See :class:`TeacherSettings`."""
        return "it is a module from memory"

    def build(
        self,
        terms: Sequence[Term],
        student_format: ImageFormat | None,
        blank: Tensor,
        dtype: torch.dtype | None = None,
    ) -> tuple[FrozenTeacher, list[Term]]:
        """See :class:`TeacherSettings`."""
        terms = [_whole_module(term, self.module) for term in terms]
        # The user's own stays as it is.
        module = copy.deepcopy(self.module)
        images = format_of(module)
        if self.image_format is not None:
            images = KnownFormat(self.image_format, "as set")
        # A preprocessor of its own counts from the same loaded order as the student's.
        elif getattr(module, "data_preprocessor", None) is None:
            _check_order(self.where, student_format, images.format)
        teacher = FrozenTeacher(
            self.where,
            module,
            taps_of(self.where, terms),
            conversion_between(self.where, student_format, images.format),
            blank,
            forward=torchvision_detectors.forward if torchvision_detectors.is_one(module) else None,
            dtype=dtype,
        )
        teacher.introduce(f"{type(self.module).__name__}, a module from memory", images)
        return teacher, teacher.located(terms)


def parse_images(where: str, settings: Mapping[str, Any]) -> ImageFormat:
    """Reads how images are normalised: ``dict(mean=..., std=..., order='rgb')``.

    Args:
        where: The setting's path, for errors.
        settings: Mean and standard deviation of the three channels, of images from 0 to 255, and
            the channels' order; each may be left out (0, 1, RGB).

    Raises:
        ValueError: An unknown key or value.
    """
    if not isinstance(settings, Mapping):
        raise InputTypeError.at(
            where, f"expected dict(mean=..., std=..., order=...), got {settings!r}"
        )
    check_keys(where, settings, _IMAGE_KEYS)
    order = settings.get("order", "rgb")
    if order not in _ORDERS:
        raise InputError(f"{where}.order must be one of {_ORDERS}, got {order!r}")
    given = {key: settings.get(key, default) for key, default in _NEUTRAL.items()}
    try:
        mean, std = (tuple(map(float, value)) for value in given.values())
    except (TypeError, ValueError):
        mean = std = ()
    if len(mean) != 3 or len(std) != 3 or not all(std):
        raise InputError.at(
            where,
            f"mean and std must hold 3 values each, of 0 to 255 images, and those of "
            f"std must not be 0, got {given}",
        )
    return ImageFormat(mean=mean, std=std, swapped=order == "rgb")


def _check_order(where: str, student: ImageFormat | None, teacher: ImageFormat | None) -> None:
    """Raises where channels would be swapped on a guess."""
    if student is None or teacher is None or student.order_is_known:
        return
    if student.swapped != teacher.swapped:
        raise InputError.at(
            where,
            f"it takes {'RGB' if teacher.swapped else 'BGR'}, and the images are not read from "
            "files, so that their order is not known (MMPretrain's CIFAR classes load RGB): give "
            "mean=, std= and order= beside 'module', 'bgr' to leave the channels as they are "
            "loaded, 'rgb' to swap them",
        )


def _whole_module(term: Term, module: nn.Module) -> Term:
    """A backbone on its own has no module of that name: it is the module."""
    if hasattr(module, "backbone"):
        return term
    return term.with_teacher_taps(lambda tap: Tap("", tap.level) if tap.path == "backbone" else tap)


def parse_teachers(owner: str, teacher: Any) -> dict[str, TeacherSettings]:
    """Reads the ``teacher`` setting: one teacher, or several by name.

    Args:
        owner: Whose setting it is (``'DistillHook'``).
        teacher: ``dict(config=..., checkpoint=...)`` or ``dict(model=..., checkpoint=...)`` of
            the MM family, ``dict(yolo=file)`` of Ultralytics', ``dict(module=...)`` or the module;
            or a dict of these.

    Raises:
        TypeError: Not a dict of the expected form.
        ValueError: An unknown key, or one that is missing.
    """
    where = f"{owner} teacher"
    if isinstance(teacher, nn.Module):
        teacher = dict(module=teacher)
    if isinstance(teacher, Mapping) and not set(teacher) & set(FAMILIES):
        modules = {k: dict(module=v) for k, v in teacher.items() if isinstance(v, nn.Module)}
        teacher = {**teacher, **modules}
    if not isinstance(teacher, Mapping) or not teacher:
        raise InputTypeError.at(
            where,
            f"expected dict(config=..., checkpoint=...), dict(yolo=...) or "
            f"dict(module=...), got {teacher!r}",
        )
    are_dicts = all(isinstance(v, Mapping) for v in teacher.values())
    if not are_dicts or set(teacher) & set(FAMILIES):
        return {"teacher": _parse(where, teacher)}
    return {name: _parse(f"{where}.{name}", each) for name, each in teacher.items()}


def _parse(where: str, settings: Mapping[str, Any]) -> TeacherSettings:
    key = next((key for key in FAMILIES if key in settings), "config")
    module, name = FAMILIES[key]
    return getattr(import_module(module), name).parse(where, settings)
