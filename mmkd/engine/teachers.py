"""The ``teacher`` setting of every adapter: one teacher or several, of any family."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from mmkd.distillation import FeatureSource
from mmkd.engine import torchvision_detectors
from mmkd.engine.frozen_teacher import FrozenTeacher, TeacherFiles, taps_of
from mmkd.engine.input_conversion import ImageFormat, KnownFormat, conversion_between
from mmkd.engine.levels import HEAD_OUTPUTS
from mmkd.engine.own_formats import format_of
from mmkd.errors import InputError, InputTypeError, check_keys
from mmkd.terms import Tap, Term

__all__ = [
    "FAMILIES",
    "IMAGE_KEYS",
    "ModuleTeacher",
    "StatedImages",
    "TeacherSettings",
    "parse_teachers",
]

# A family by a key that tells it: its class, imported when it is asked for.
FAMILIES = {
    "yolo": ("mmkd.engine.ultralytics.teacher", "YOLOTeacher"),
    "ema": ("mmkd.engine.averaged_student", "StudentAverage"),
    "student": ("mmkd.engine.student_itself", "StudentAsTeacher"),
    "module": (__name__, "ModuleTeacher"),
    "config": ("mmkd.engine.mmengine.teacher", "MMTeacher"),
    "model": ("mmkd.engine.mmengine.teacher", "MMTeacher"),
    "checkpoint": ("mmkd.engine.mmengine.teacher", "MMTeacher"),
    "allow_pickle": ("mmkd.engine.mmengine.teacher", "MMTeacher"),
}
_ORDERS = ("rgb", "bgr")
# A teacher's own order, said so.
_STUDENTS = "student"
IMAGE_KEYS = ("mean", "std", "order")
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
    ) -> tuple[FeatureSource, list[Term]]:
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
        images: Those it takes; None: its own, as far as it tells them (see
            :func:`mmkd.engine.own_formats.format_of`), else the student's.
    """

    where: str
    module: nn.Module
    images: StatedImages | None = None

    @classmethod
    def parse(cls, where: str, settings: Mapping[str, Any]) -> ModuleTeacher:
        """Reads ``dict(module=..., mean=..., std=..., order='rgb')``.

        Raises:
            ValueError: An unknown key or value.
        """
        check_keys(where, settings, ("module", *IMAGE_KEYS))
        module = settings["module"]
        if isinstance(module, DistributedDataParallel | DataParallel):
            module = module.module
        if not isinstance(module, nn.Module):
            raise InputError(f"{where}.module must be a torch module, got {module!r}")
        return cls(where, module, StatedImages.beside(where, settings))

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
        for term in terms:
            self._check_heads(term)
        terms = [_whole_module(term, self.module) for term in terms]
        # The user's own stays as it is.
        module = copy.deepcopy(self.module)
        images = format_of(module, student_format)
        if self.images is not None:
            images = self.images.in_place_of(images, self.where, student_format)
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

    def _check_heads(self, term: Term) -> None:
        own = dict(self.module.named_modules(remove_duplicate=False))
        paths = [tap.path for tap in term.teacher if tap.path not in own]
        asked = [path for path in paths if path in HEAD_OUTPUTS]
        if term.scores or asked:
            what = repr(asked[0]) if asked else "the class scores by which the loss weighs cells"
            owner = self.where.partition(" ")[0]
            raise InputError.at(
                f"{owner} {term.key}.teacher",
                f"{what} are known by name of a detector that comes from its files, as "
                "teacher=dict(config=..., checkpoint=...) of MMDetection's or dict(yolo=...) of "
                "Ultralytics'; of a module from memory give the path of one of its modules",
            )


@dataclass(frozen=True)
class StatedImages:
    """How images are normalised, as a user says.

    Args:
        mean, std: Of three channels, of images from 0 to 255.
        order: Of the channels; ``'student'``: that in which the student sees them.
        is_order_alone: Whether nothing else was said.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    order: str
    is_order_alone: bool = False

    @classmethod
    def parse(
        cls, where: str, settings: Mapping[str, Any], orders: Sequence[str] = _ORDERS
    ) -> StatedImages:
        """Reads ``dict(mean=..., std=..., order='rgb')``; what is left out is 0, 1 and RGB.

        Args:
            where: The setting's path, for errors.
            settings: The setting.
            orders: Which are possible.

        Raises:
            ValueError: An unknown key or value.
        """
        if not isinstance(settings, Mapping):
            raise InputTypeError.at(
                where, f"expected dict(mean=..., std=..., order=...), got {settings!r}"
            )
        check_keys(where, settings, IMAGE_KEYS)
        order = settings.get("order", "rgb")
        if order not in orders:
            raise InputError(f"{where}.order must be one of {tuple(orders)}, got {order!r}")
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
        return cls(mean, std, order, settings.keys() == {"order"})

    @classmethod
    def beside(cls, where: str, settings: Mapping[str, Any]) -> StatedImages | None:
        """Of a teacher, what its settings say of images; None: nothing.

        Raises:
            ValueError: As :meth:`parse`.
        """
        images = {key: settings[key] for key in IMAGE_KEYS if key in settings}
        return cls.parse(where, images, (*_ORDERS, _STUDENTS)) if images else None

    def in_place_of(self, own: KnownFormat, where: str, student: ImageFormat | None) -> KnownFormat:
        """The format that goes before what a model tells of itself.

        Args:
            own: What it tells.
            where: The setting's path, for errors.
            student: See :meth:`format`.

        Raises:
            ValueError: An order alone, where the model tells a normalisation.
        """
        if self.is_order_alone and own.format is not None:
            raise InputError.at(
                f"{where}.order",
                f"alone it would undo the normalisation that {own.origin} tells: give mean and std "
                "beside it, which go before its own too, or leave it out",
            )
        return KnownFormat(self.format(student), "as set")

    def format(self, student: ImageFormat | None = None) -> ImageFormat:
        """As a preprocessor's.

        Args:
            student: Whose order ``'student'`` is.
        """
        plain = ImageFormat(self.mean, self.std, swapped=self.order == "rgb")
        if self.order != _STUDENTS or student is None:
            return plain
        return replace(plain, swapped=student.swapped, loaded=student.loaded)


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
            the MM family, ``dict(yolo=file)`` of Ultralytics', ``dict(module=...)`` or the module,
            ``dict(ema=0.999)`` of the student's own moving average, ``dict(student=True)`` of the
            student itself; or a dict of these.

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
