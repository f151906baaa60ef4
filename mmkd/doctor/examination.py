"""What is found of a distillation in its first iterations. It knows no trainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Costs", "Examination", "TeacherFinding", "TermFinding"]


@dataclass(frozen=True)
class TermFinding:
    """One term.

    Args:
        name: In logs.
        student, teacher: Which outputs it compares.
        student_shapes, teacher_shapes: Of a batch, one a level.
        size: Height and width of the batch's images in pixels; None where it is not known.
        samples: Rows that its BatchNorm sees in a batch; None without such a one.
        distance, weight: Means over the iterations, in which the schedule's factor is 1.
        share: Of the term in the gradient at the student's feature; None where nothing of it, or
            of the task, arrived.
        cosine: Of its gradient to the task's, likewise.
        is_balanced: Whether the weight is chosen by a rule.
        active: Share of the training's iterations in which its schedule has it on.
    """

    name: str
    student: str
    teacher: str
    student_shapes: tuple[tuple[int, ...], ...]
    teacher_shapes: tuple[tuple[int, ...], ...]
    size: tuple[int, int] | None
    samples: int | None
    distance: float | None
    weight: float | None
    share: float | None
    cosine: float | None
    is_balanced: bool
    active: float


@dataclass(frozen=True)
class TeacherFinding:
    """One teacher.

    Args:
        name: In the settings.
        introduction: Its network, weights and images.
        parameters: Of the whole network.
        loss: Of its own task on a training batch, with the images that it is given here; None where
            it cannot be told.
        otherwise: The same loss with images of another kind, by what that is.
        accuracy: On validation images, in percent: COCO's mAP, or top-1; None where it cannot be
            told.
        accuracy_otherwise: The same with images of another kind.
        images: How many they are.
        chance: What guessing comes to, in percent.
        unchecked: Why its accuracy cannot be told, where that should be known.
    """

    name: str
    introduction: str
    parameters: int
    loss: float | None = None
    otherwise: Mapping[str, float] = field(default_factory=dict)
    accuracy: float | None = None
    accuracy_otherwise: Mapping[str, float] = field(default_factory=dict)
    images: int = 0
    chance: float = 0.0
    unchecked: str = ""


@dataclass(frozen=True)
class Costs:
    """Of a training step, without its data.

    Args:
        seconds: Median.
        peak_bytes: Of the device; on a CPU of the whole process so far, which has trained the
            student alone first.
    """

    seconds: float
    peak_bytes: int | None


@dataclass(frozen=True)
class Examination:
    """Everything.

    Args:
        terms: What is compared.
        teachers: From whom.
        student_parameters: Of the student alone.
        student_loss: Its own task's, on the batch of the teachers' losses, before it learns; None
            where it cannot be told, or the student is no longer untrained.
        plain, distilled: A step of the student alone, and with the terms.
        teacher_share: Of a distilled step's time.
        iterations: Of the training.
    """

    terms: tuple[TermFinding, ...]
    teachers: tuple[TeacherFinding, ...]
    student_parameters: int
    student_loss: float | None
    plain: Costs
    distilled: Costs
    teacher_share: float | None
    iterations: int

    @property
    def extra_hours(self) -> float:
        """What the terms add to the training."""
        return (self.distilled.seconds - self.plain.seconds) * self.iterations / 3600
