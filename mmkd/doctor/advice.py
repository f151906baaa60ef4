"""What is wrong with a distillation, by what was found of it, and what to change."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

from mmkd.doctor.examination import Examination, TeacherFinding, TermFinding

__all__ = ["Advice", "advise"]

# Fewer rows give BatchNorm statistics of noise.
_FEWEST_SAMPLES = 16
# A term that leaves less of the gradient to the task than a twentieth.
_DROWNED, _UNHEARD = 0.95, 0.01
# Two gradients against each other.
_OPPOSED = -0.3
# Of a loss: what is less of a difference is the batch's.
_CLEARLY = 0.8
_ALIKE = 1.1
# Points: what is less of a difference is that of few images; and what an untrained one may score.
_BETTER, _NOTHING = 10.0, 1.0


class Advice(NamedTuple):
    """A finding in words.

    Args:
        level: ``'error'``: it will not help as it is; ``'warning'``: it may not.
        about: Which setting.
        text: What was found, and what to change.
    """

    level: Literal["error", "warning"]
    about: str
    text: str


def advise(found: Examination) -> list[Advice]:
    """Errors first."""
    advice = [
        *(each for teacher in found.teachers for each in _of_teacher(teacher, found)),
        *(each for term in found.terms for each in _of_term(term)),
    ]
    return sorted(advice, key=lambda each: each.level)


def _of_teacher(teacher: TeacherFinding, found: Examination) -> Iterator[Advice]:
    about = "teacher" if teacher.name == "teacher" else f"teacher.{teacher.name}"
    if teacher.accuracy is not None:
        most = max(teacher.accuracy_otherwise.values(), default=0.0)
        scored = f"it scores {teacher.accuracy:.1f}% on {teacher.images} validation images"
        if most > teacher.accuracy + _BETTER:
            better = max(teacher.accuracy_otherwise, key=teacher.accuracy_otherwise.__getitem__)
            yield Advice(
                "error",
                about,
                f"{scored}, and {most:.1f}% with {better}: it is given images of another kind than "
                "it was trained on. Check mean, std and order of student and teacher",
            )
            return
        if teacher.accuracy < _by_luck(teacher):
            yield Advice(
                "error",
                about,
                f"{scored}: it is not trained, or on other classes. Check its checkpoint",
            )
            return
    if teacher.unchecked:
        yield Advice(
            "warning", about, f"its accuracy on these images is not known: {teacher.unchecked}"
        )
    if teacher.loss is not None and not math.isfinite(teacher.loss):
        yield Advice(
            "error",
            about,
            f"its own loss on a training batch is {teacher.loss}: check its checkpoint, and mean "
            "and std of student and teacher",
        )
    elif teacher.loss is not None:
        least = min(teacher.otherwise.values(), default=math.inf)
        if least < _CLEARLY * teacher.loss:
            # The same images may be told in two ways.
            better = next(k for k, v in teacher.otherwise.items() if v <= _ALIKE * least)
            yield Advice(
                "error",
                about,
                f"its own loss on a training batch is {teacher.loss:.3g}, and {least:.3g} with "
                f"{better}: it is given images of another kind than it was trained on. Check mean, "
                "std and order of student and teacher",
            )
        elif found.student_loss is not None and teacher.loss > _CLEARLY * found.student_loss:
            yield Advice(
                "error",
                about,
                f"its own loss on a training batch is {teacher.loss:.3g}, that of the student "
                f"before training {found.student_loss:.3g}: it is not trained, or on other data. "
                "Check its checkpoint, and test it on the validation images",
            )
    if teacher.parameters < found.student_parameters:
        yield Advice(
            "warning",
            about,
            f"it has {_millions(teacher.parameters)} parameters, the student "
            f"{_millions(found.student_parameters)}: are they swapped?",
        )


def _by_luck(teacher: TeacherFinding) -> float:
    """What one may score that knows nothing: two deviations above guessing."""
    deviation = math.sqrt(teacher.chance * (100 - teacher.chance) / max(teacher.images, 1))
    return max(_NOTHING, teacher.chance + 2 * deviation)


def _of_term(term: TermFinding) -> Iterator[Advice]:
    about = f"terms.{term.name}"
    if not term.active:
        yield Advice(
            "error",
            f"{about}.schedule",
            "it is never on in this training: begin lies behind its end, or the weight is 0",
        )
        return
    if term.samples is not None and term.samples < _FEWEST_SAMPLES:
        yield Advice(
            "error" if term.samples < _FEWEST_SAMPLES / 2 else "warning",
            about,
            f"its BatchNorm sees {term.samples} samples a batch: compare every location "
            "(view='dense'), give larger batches, or another normalizer",
        )
    if term.share is not None and term.share > _DROWNED:
        yield Advice(
            "error",
            f"{about}.weight",
            f"{term.share:.0%} of the gradient at the student's feature are its own, "
            f"{term.share / max(1 - term.share, 1e-9):.0f} times the task's: give a smaller "
            "weight, or weight=dict(share=0.5)",
        )
    if term.share is not None and term.share < _UNHEARD:
        yield Advice(
            "warning",
            f"{about}.weight",
            f"only {term.share:.1%} of the gradient at the student's feature are its own: give a "
            "larger weight, or weight=dict(share=0.5)",
        )
    if term.cosine is not None and term.cosine < _OPPOSED:
        yield Advice(
            "warning",
            about,
            f"its gradient points against the task's (cosine {term.cosine:.2f}): try another level",
        )


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M"
