"""The ``teacher`` setting of every adapter: one teacher or several, of any family."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from mmkd.engine.frozen_teacher import FrozenTeacher
from mmkd.engine.input_conversion import ImageFormat
from mmkd.terms import Term, check_keys

__all__ = ["ModuleTeacher", "TeacherSettings", "parse_teachers", "tap_settings"]

_MM_KEYS = {"config", "model", "checkpoint", "allow_pickle"}
_ORDERS = ("rgb", "bgr")
_NEUTRAL = {"mean": (0.0,) * 3, "std": (1.0,) * 3}


class TeacherSettings(Protocol):
    """Where one teacher comes from; ``build`` is all that an adapter asks of it."""

    def build(
        self,
        terms: Sequence[Term],
        student_format: ImageFormat,
        device: torch.device,
        probe_size: int,
        dtype: torch.dtype | None = None,
    ) -> tuple[FrozenTeacher, list[Term]]:
        """The teacher, and its terms with taps that name its modules.

        Args:
            terms: Those that this teacher serves.
            student_format: Of the images that the student's trainer prepares.
            device: Where to run.
            probe_size: Side in pixels of the blank image on which it is tried.
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
        image_format: Of the images it takes; None: its own preprocessor's, or the student's.
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
        check_keys(where, settings, ("module", "mean", "std", "order"))
        if not isinstance(settings["module"], nn.Module):
            raise ValueError(f"{where}.module must be a torch module, got {settings['module']!r}")
        order = settings.get("order", "rgb")
        if order not in _ORDERS:
            raise ValueError(f"{where}.order must be one of {_ORDERS}, got {order!r}")
        if set(settings) == {"module"}:
            return cls(where, settings["module"])
        given = {key: settings.get(key, default) for key, default in _NEUTRAL.items()}
        try:
            mean, std = (tuple(map(float, value)) for value in given.values())
        except (TypeError, ValueError):
            mean = std = ()
        if len(mean) != 3 or len(std) != 3 or not all(std):
            raise ValueError(
                f"{where}: mean and std must hold 3 values each, of 0 to 255 images, and those of "
                f"std must not be 0, got {given}"
            )
        image_format = ImageFormat(mean=mean, std=std, swapped=order == "rgb")
        return cls(where, settings["module"], image_format)

    def build(
        self,
        terms: Sequence[Term],
        student_format: ImageFormat,
        device: torch.device,
        probe_size: int,
        dtype: torch.dtype | None = None,
    ) -> tuple[FrozenTeacher, list[Term]]:
        """See :class:`TeacherSettings`."""
        terms = [_whole_module(term, self.module) for term in terms]
        preprocessor = getattr(self.module, "data_preprocessor", None)
        own = ImageFormat.of(preprocessor) if preprocessor is not None else student_format
        teacher = FrozenTeacher(
            self.where,
            # The user's own stays as it is.
            copy.deepcopy(self.module),
            tap_settings(self.where, terms),
            student_format,
            self.image_format or own,
            device=device,
            probe_size=probe_size,
            dtype=dtype,
        )
        teacher.introduce(f"{type(self.module).__name__}, a module from memory")
        return teacher, terms


def _whole_module(term: Term, module: nn.Module) -> Term:
    """A backbone on its own has no module of that name: it is the module."""
    is_default = term.teacher == "backbone" and not hasattr(module, "backbone")
    return term.replace(teacher="") if is_default else term


def tap_settings(where: str, terms: Sequence[Term]) -> dict[str, str]:
    """The teacher's tap of each term, by the setting that names it."""
    owner = where.partition(" ")[0]
    return {f"{owner} {term.key}.teacher": term.teacher for term in terms}


def parse_teachers(owner: str, teacher: Any) -> dict[str, TeacherSettings]:
    """Reads the ``teacher`` setting: one teacher, or several by name.

    Args:
        owner: Whose setting it is (``'DistillHook'``).
        teacher: ``dict(config=..., checkpoint=...)`` or ``dict(model=..., checkpoint=...)`` of
            the MM family, ``dict(yolo=file)`` of Ultralytics', ``dict(module=...)``; or a dict
            of such dicts.

    Raises:
        TypeError: Not a dict of the expected form.
        ValueError: An unknown key, or one that is missing.
    """
    if not isinstance(teacher, Mapping) or not teacher:
        raise TypeError(
            f"{owner} teacher: expected dict(config=..., checkpoint=...), dict(yolo=...) or "
            f"dict(module=...), got {teacher!r}"
        )
    known = {*_MM_KEYS, "yolo", "module"}
    several = all(isinstance(v, Mapping) for v in teacher.values()) and not set(teacher) & known
    if not several:
        return {"teacher": _parse(f"{owner} teacher", teacher)}
    return {name: _parse(f"{owner} teacher.{name}", each) for name, each in teacher.items()}


def _parse(where: str, settings: Mapping[str, Any]) -> TeacherSettings:
    if "yolo" in settings:
        from mmkd.engine.ultralytics.teacher import YOLOTeacher

        check_keys(where, settings, ("yolo",))
        return YOLOTeacher(where, settings["yolo"])
    if "module" in settings:
        return ModuleTeacher.parse(where, settings)
    from mmkd.engine.mmengine.teacher import MMTeacher

    return MMTeacher.parse(where, settings)
