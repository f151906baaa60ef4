"""What is found of a teacher on a training batch, whatever the trainer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from mmkd.distillation import Distillation
from mmkd.doctor.examination import TeacherFinding
from mmkd.engine.frozen_teacher import FrozenTeacher

__all__ = ["examined_teacher", "other_classes"]


def examined_teacher(
    distillation: Distillation,
    name: str,
    own_parameters: int,
    batch: tuple[Tensor, Any],
    loss_of: Callable[[Any, Tensor], float | None] | None,
    validation: tuple[Tensor, Any] | None,
    accuracy_of: Callable[[Any, Tensor], float | None],
    chance: float = 0.0,
    unchecked: Callable[[Any], str] = lambda network: "",
) -> TeacherFinding:
    """Its size; its own task's loss and accuracy, with the images that it is given here and with
    others.

    Args:
        distillation: That holds it.
        name: In the settings.
        own_parameters: Of the student, which one without a network of its own is.
        batch: The student's training images, and what the distillation passes on with them.
        loss_of: Of a network and its images; None where it cannot be told, or tells nothing.
        validation: Likewise of validation images; None without any.
        accuracy_of: In percent.
        chance: What guessing comes to, in percent.
        unchecked: Why a network's accuracy cannot be told, where that should be known.
    """
    teacher: Any = distillation.teachers[name]
    network = getattr(teacher, "model", None)
    parameters = own_parameters
    if network is not None:
        parameters = sum(p.numel() for p in network.parameters())
    found = TeacherFinding(name, teacher.introduction, parameters)
    # One that follows the student begins as untrained as that.
    if not isinstance(teacher, FrozenTeacher) or teacher.state is not None:
        return found

    def tried(
        given: tuple[Tensor, Any], value_of: Callable[[Any, Tensor], float | None]
    ) -> tuple[float | None, dict[str, float]]:
        inputs, context = given
        images = teacher.converted(inputs, context)
        value = value_of(network, images)
        if value is None:
            return None, {}
        others = {
            "red and blue exchanged": images.flip(1),
            "values of 0 to 255 in the place of 0 to 1": images * 255,
            "values of 0 to 1 in the place of 0 to 255": images / 255,
            "the student's own images": inputs,
        }
        otherwise = {kind: value_of(network, each) for kind, each in others.items()}
        return value, {kind: each for kind, each in otherwise.items() if each is not None}

    loss, with_others = (None, {}) if loss_of is None else tried(batch, loss_of)
    accuracy, accuracy_with_others = (
        (None, {}) if validation is None else tried(validation, accuracy_of)
    )
    return replace(
        found,
        loss=loss,
        otherwise=with_others,
        accuracy=accuracy,
        accuracy_otherwise=accuracy_with_others,
        images=0 if validation is None else len(validation[0]),
        chance=chance,
        unchecked="" if accuracy is not None else unchecked(network),
    )


def other_classes(theirs: int, ours: int) -> str:
    """Why a teacher's accuracy is not known, as ``unchecked`` says it."""
    return (
        f"it tells {theirs} classes apart, the student {ours}. If it is of another data set, test "
        "it on that one"
    )
