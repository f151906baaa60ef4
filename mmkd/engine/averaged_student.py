"""The student's own moving average as its teacher: Tarvainen & Valpola, *Mean teachers are better
role models* (NeurIPS 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from mmkd.engine.from_student import FromStudent, StudentSide
from mmkd.engine.frozen_teacher import FrozenTeacher, taps_of
from mmkd.engine.input_conversion import ImageFormat, KnownFormat, conversion_between
from mmkd.errors import InputError, check_keys
from mmkd.terms import Term

__all__ = ["AveragedStudent", "StudentAverage"]

_Tensors = tuple[Tensor, ...] | list[Tensor]


class AveragedStudent(FrozenTeacher):
    """``w_t <- m w_t + (1 - m) w_s`` before each iteration, with the student's weights and running
    statistics as the last step has left them (section 2 of the paper).

    In iteration i, m is at most ``i / (i + 1)``, so that the first weights of all, which are
    random, are forgotten (as in the authors' program). Unlike theirs, the average runs in eval
    mode, with the averaged statistics and without dropout, and is shown the student's own
    augmentation of an image, not another.

    Args:
        where, taps, blank: See :class:`mmkd.engine.frozen_teacher.FrozenTeacher`.
        student: What is averaged, and how it runs.
        momentum: m, from 0 to below 1.
        images: Those that the student takes; None if unknown.
    """

    def __init__(
        self,
        where: str,
        student: StudentSide,
        momentum: float,
        taps: Sequence[tuple[str, str]],
        blank: Tensor,
        images: ImageFormat | None = None,
    ) -> None:
        self._student = student.model
        self._momentum = momentum
        self._iteration: int | None = None
        self._average = AveragedModel(student.model, multi_avg_fn=self._follow, use_buffers=True)
        same = conversion_between(where, None, None)
        super().__init__(where, self._average.module, taps, same, blank, forward=student.run)
        self.state = self._average
        self.introduce(
            f"moving average of the student ({type(student.model).__name__}), momentum {momentum}",
            KnownFormat(images, "it is the student's"),
        )

    @torch.no_grad()
    def advance(self, iteration: int) -> None:
        """See :meth:`mmkd.distillation.FeatureSource.advance`."""
        # An iteration whose forward pass failed begins again.
        if iteration != self._iteration:
            self._iteration = iteration
            self._average.update_parameters(self._student)

    def _follow(self, averaged: _Tensors, current: _Tensors, updates: Tensor | int) -> None:
        # Not the argument, which lies on the student's device and would be waited for.
        done = int(self._average.n_averaged)
        momentum = min(self._momentum, done / (done + 1))
        if averaged[0].is_floating_point() and momentum:
            # Not by their difference, which is none of two infinite masks.
            torch._foreach_mul_(list(averaged), momentum)
            torch._foreach_add_(list(averaged), list(current), alpha=1 - momentum)
            return
        # Counters; or all, without a memory.
        torch._foreach_copy_(list(averaged), list(current))


@dataclass(frozen=True)
class StudentAverage(FromStudent):
    """The setting ``teacher=dict(ema=0.999)``.

    Args:
        momentum: Of the average, from 0 to below 1.
    """

    momentum: float = 0.0

    @classmethod
    def parse(cls, where: str, settings: Mapping[str, Any]) -> StudentAverage:
        """Reads it.

        Raises:
            ValueError: An unknown key, or a momentum out of range.
        """
        check_keys(where, settings, ("ema",))
        momentum = settings["ema"]
        is_number = isinstance(momentum, int | float) and not isinstance(momentum, bool)
        if not is_number or not 0 <= momentum < 1:
            raise InputError.at(
                f"{where}.ema",
                "expected the momentum of the moving average, from 0 to below 1, such as 0.999, "
                f"got {momentum!r}",
            )
        return cls(where, momentum=float(momentum))

    def build(
        self,
        terms: Sequence[Term],
        student_format: ImageFormat | None,
        blank: Tensor,
        dtype: torch.dtype | None = None,
    ) -> tuple[FrozenTeacher, list[Term]]:
        """See :class:`mmkd.engine.teachers.TeacherSettings`; it runs as the autocast around it
        says, since an average in half precision would stand still."""
        terms = self._resolved(terms, blank)
        taps = taps_of(self.where, terms)
        teacher = AveragedStudent(
            self.where, self._known(), self.momentum, taps, blank, student_format
        )
        return teacher, terms
