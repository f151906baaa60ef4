"""What every adapter is told: a teacher, terms, and how they become a distillation."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mmkd.distillation import Distillation, FeatureSource
from mmkd.engine.from_student import FromStudent, StudentSide
from mmkd.engine.frozen_teacher import Forward
from mmkd.engine.input_conversion import ImageFormat
from mmkd.engine.levels import Levels, Named, expanded
from mmkd.engine.probe import ProbeSize, parse_probe_size, probing
from mmkd.engine.random_state import preserved_random_state
from mmkd.engine.teachers import TeacherSettings, parse_teachers
from mmkd.errors import InputError, naming
from mmkd.terms import Term, parse_terms

__all__ = ["DistillSettings"]


@dataclass(frozen=True)
class DistillSettings:
    """The settings that all adapters share.

    Args:
        owner: Whose settings errors name (``'DistillHook'``).
        teachers: By name.
        terms: With taps as they were given.
        probe_size: Height and width of the blank image on which all of it is tried; None for those
            of the training's own images.
        of_necks: Terms in the place of these, where student and teachers have necks that give maps;
            None where a user has given the terms.
    """

    owner: str
    teachers: Mapping[str, TeacherSettings]
    terms: tuple[Term, ...]
    probe_size: tuple[int, int] | None
    of_necks: tuple[Term, ...] | None = None

    @classmethod
    def parse(
        cls,
        owner: str,
        teacher: Any,
        terms: Mapping[str, Mapping[str, Any]] | None = None,
        probe_size: ProbeSize | None = None,
    ) -> DistillSettings:
        """Reads them.

        Args:
            owner: Whose settings they are.
            teacher: See :func:`mmkd.engine.teachers.parse_teachers`.
            terms: See :func:`mmkd.terms.parse_terms`.
            probe_size: See :func:`mmkd.engine.probe.parse_probe_size`.

        Raises:
            ValueError, TypeError: An unknown key or value, naming the setting; a teacher without
                a term.
        """
        size = parse_probe_size(owner, probe_size)
        teachers = parse_teachers(owner, teacher)
        parsed = parse_terms(terms, list(teachers), owner)
        for term in parsed:
            _check_name(f"{owner} terms", term.name)
        for name in teachers:
            if not any(term.source == name for term in parsed):
                where = f"{owner} teacher.{name}"
                raise InputError.at(where, f"no term has source={name!r}")
        necks = None if terms else tuple(parse_terms(None, list(teachers), owner, "neck"))
        return cls(owner, teachers, tuple(parsed), size, necks)

    def build(
        self,
        student: nn.Module,
        student_format: ImageFormat | None,
        run: Forward,
        image_size: Callable[[], tuple[int, int]],
        *,
        seed: int = 0,
        dtype: torch.dtype | None = None,
        named: Named = lambda student, path: None,
    ) -> Distillation:
        """Builds the teachers and the terms, and tries them. No global random state changes.

        Args:
            student: The model to tap, on its device.
            student_format: Of the images that its trainer prepares; None if unknown.
            run: Runs the student, or a copy of it, on images ``[N, 3, H, W]``.
            image_size: Height and width of the training's own images; called where ``probe_size``
                does not say them.
            seed: Of the projectors' initial weights.
            dtype: In which the teachers run; None: float32, or as the autocast around them says.
            named: The student's modules that a name stands for.

        Raises:
            ValueError, FileNotFoundError: Something does not fit, naming the setting.
        """
        parameter = next(student.parameters(), None)
        if parameter is None:
            raise InputError.at(
                f"{self.owner} student", f"{type(student).__name__} has no parameters to train"
            )
        size = self.probe_size or image_size()
        blank = parameter.detach().new_zeros(1, 3, *size)
        with preserved_random_state():
            probe = probing(self.owner, "the student", blank)(lambda: run(student, blank, None))
            levels = Levels(student, probe, size, named)

            def built(terms: Sequence[Term]) -> Distillation:
                terms = [each for term in terms for each in self._resolved(term, levels)]
                teachers: dict[str, FeatureSource] = {}
                found: dict[str, Term] = {}
                for name, settings in self.teachers.items():
                    if isinstance(settings, FromStudent):
                        settings = settings.of(StudentSide(student, run, named))
                    own = [term for term in terms if term.source == name]
                    teachers[name], matched = settings.build(own, student_format, blank, dtype)
                    found |= {term.name: term for term in matched}
                terms = [found[term.name] for term in terms]
                return Distillation(
                    self.owner, student, terms, teachers, probe, size=size, seed=seed
                )

            if self.of_necks is not None and _has_maps(levels, "neck"):
                try:
                    return built(self.of_necks)
                except torch.OutOfMemoryError:
                    raise
                except (ValueError, RuntimeError) as error:
                    # Whatever else is wrong is wrong of the others too.
                    logging.getLogger(__name__).info(
                        "%s: the backbone is distilled, since the neck cannot be: %s",
                        self.owner,
                        error,
                    )
            return built(self.terms)

    def _resolved(self, term: Term, levels: Levels) -> list[Term]:
        with naming(f"{self.owner} {term.key}.student"):
            return [
                each.replace(student=tuple(levels.find(tap) for tap in each.student))
                for each in expanded(term, levels)
            ]


def _has_maps(levels: Levels, path: str) -> bool:
    """Whether a student has such a module, and it gives maps."""
    try:
        return bool(levels.by_stride(path))
    except (ValueError, RuntimeError):
        return False


def _check_name(where: str, name: str) -> None:
    if not re.fullmatch(r"[\w-]+", name) or hasattr(nn.ModuleDict(), name):
        raise InputError.at(
            where, f"{name!r} cannot name a term: choose another name, a plain word"
        )
    if name == "ratio" or name.startswith(("weight_", "share_")):
        raise InputError.at(
            where, f"{name!r} is what figures of terms are logged as: choose another name"
        )
