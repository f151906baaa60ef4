"""What teachers share that come from the student, of whom no file tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

from torch import Tensor, nn

from mmkd.engine.frozen_teacher import Forward
from mmkd.engine.levels import Levels, Named
from mmkd.errors import naming
from mmkd.terms import Term

__all__ = ["FromStudent", "StudentSide"]

_T = TypeVar("_T", bound="FromStudent")


class StudentSide(NamedTuple):
    """What such a teacher needs of the student.

    Args:
        model: The student, on its device.
        run: A forward pass of it or of its copy, called as ``run(model, inputs, context)``.
        named: Its modules that a name stands for.
    """

    model: nn.Module
    run: Forward
    named: Named

    def try_out(self, blank: Tensor) -> Any:
        """A forward pass of the student.

        Args:
            blank: ``[1, 3, H, W]``, as it takes images.
        """
        return self.run(self.model, blank, None)


@dataclass(frozen=True)
class FromStudent:
    """The settings of such a teacher.

    Args:
        where: The setting that errors name.
        student: Once it is known.
    """

    where: str
    student: StudentSide | None = None

    def of(self: _T, student: StudentSide) -> _T:
        """Of this student."""
        return replace(self, student=student)

    def check(self) -> None:
        """See :class:`mmkd.engine.teachers.TeacherSettings`."""

    def files(self) -> str:
        """See :class:`mmkd.engine.teachers.TeacherSettings`."""
        return "it is made from the student itself"

    def _known(self) -> StudentSide:
        assert self.student is not None
        return self.student

    def _resolved(self, terms: Sequence[Term], blank: Tensor) -> list[Term]:
        """Terms whose taps name modules and levels, as the student's do."""
        student, size = self._known(), (blank.shape[2], blank.shape[3])
        levels = Levels(student.model, lambda: student.try_out(blank), size, student.named)
        found = []
        for term in terms:
            with naming(f"{self.where.partition(' ')[0]} {term.key}.teacher"):
                found.append(levels.of_scores(term).with_teacher_taps(levels.find))
        return found
