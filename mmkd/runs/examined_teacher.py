"""What is found of a teacher on a training batch, whatever the trainer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from mmkd.distillation import Distillation
from mmkd.doctor.examination import TeacherFinding
from mmkd.engine.frozen_teacher import FrozenTeacher

__all__ = ["examined_teacher"]


def examined_teacher(
    distillation: Distillation,
    name: str,
    own_parameters: int,
    inputs: Tensor,
    context: Any,
    loss_of: Callable[[Any, Tensor], float | None],
) -> TeacherFinding:
    """Its size, and its own task's loss with the images that it is given here and with others.

    Args:
        distillation: That holds it.
        name: In the settings.
        own_parameters: Of the student, which one without a network of its own is.
        inputs, context: The student's batch, as the distillation passes it on.
        loss_of: Of a network and its images; None where it cannot be told.
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
    images = teacher.converted(inputs, context)
    loss = loss_of(network, images)
    if loss is None:
        return found
    others = {
        "red and blue exchanged": images.flip(1),
        "values of 0 to 255 in the place of 0 to 1": images * 255,
        "values of 0 to 1 in the place of 0 to 255": images / 255,
        "the student's own images": inputs,
    }
    otherwise = {kind: loss_of(network, each) for kind, each in others.items()}
    known = {kind: value for kind, value in otherwise.items() if value is not None}
    return TeacherFinding(name, teacher.introduction, parameters, loss, known)
