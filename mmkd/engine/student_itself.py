"""The student as its own teacher, in the forward pass that it makes anyway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.engine.from_student import FromStudent, StudentSide
from mmkd.engine.frozen_teacher import taps_of
from mmkd.engine.input_conversion import ImageFormat
from mmkd.errors import InputError, check_keys, naming
from mmkd.features import find_module, outputs_when_run
from mmkd.terms import Term

__all__ = ["StudentAsTeacher", "StudentItself"]


class StudentItself:
    """A :class:`mmkd.distillation.FeatureSource` that runs nothing: its features are the student's,
    of the same batch and in training mode, without gradient.

    Args:
        where: The setting that errors name.
        student: Itself, and how it runs.
        taps: Its modules, as :func:`mmkd.engine.frozen_teacher.taps_of` gives them.
        blank: ``[1, 3, H, W]``, on which it is tried.

    Raises:
        ValueError: A tap that does not exist.
        RuntimeError: A tapped module does not run.
    """

    state: nn.Module | None = None
    loaded = None
    converts_images = False

    def __init__(
        self, where: str, student: StudentSide, taps: Sequence[tuple[str, str]], blank: Tensor
    ) -> None:
        for setting, path in taps:
            with naming(setting):
                find_module(student.model, path)
        self._model = student.model
        self.own_taps = tuple(path for _, path in taps)
        with naming(where):
            self.probed = outputs_when_run(
                student.model, self.own_taps, lambda: student.try_out(blank)
            )
        self.introduction = f"{where}: the student itself, in its own forward pass"

    def module(self, path: str) -> nn.Module:
        """A module of the student's."""
        return find_module(self._model, path)

    def advance(self, iteration: int) -> None:
        """See :meth:`mmkd.distillation.FeatureSource.advance`."""

    def features(
        self, inputs: Tensor, context: Any = None, student: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        """See :meth:`mmkd.distillation.FeatureSource.features`."""
        assert student is not None
        return student


@dataclass(frozen=True)
class StudentAsTeacher(FromStudent):
    """The setting ``teacher=dict(student=True)``."""

    @classmethod
    def parse(cls, where: str, settings: Mapping[str, Any]) -> StudentAsTeacher:
        """Reads it.

        Raises:
            ValueError: An unknown key, or another value.
        """
        check_keys(where, settings, ("student",))
        if settings["student"] is not True:
            found = settings["student"]
            raise InputError.at(f"{where}.student", f"expected True, got {found!r}")
        return cls(where)

    def build(
        self,
        terms: Sequence[Term],
        student_format: ImageFormat | None,
        blank: Tensor,
        dtype: torch.dtype | None = None,
    ) -> tuple[StudentItself, list[Term]]:
        """See :class:`mmkd.engine.teachers.TeacherSettings`."""
        terms = self._resolved(terms, blank)
        return StudentItself(self.where, self._known(), taps_of(self.where, terms), blank), terms
