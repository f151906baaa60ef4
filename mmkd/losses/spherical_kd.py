"""Spherical KD: Guo et al., *Reducing the Teacher-Student Gap via Spherical Knowledge Distillation*
(2020)."""

from __future__ import annotations

from torch import Tensor

from mmkd.losses.kd import KDLoss, kd
from mmkd.numerics import at_least_float32, check_logits, unit_vectors
from mmkd.registry import MODELS

__all__ = ["SphericalKDLoss", "spherical_kd"]


def spherical_kd(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """:func:`mmkd.losses.kd.kd` of logits that are brought to one norm: the teacher's mean norm.

    Logits lose their mean, are divided by their norm and multiplied by the mean over images of the
    teacher's norms, so that the student learns the direction alone. The paper takes that mean over
    the data set; here it is over the batch.

    Args:
        student, teacher: Logits ``[N, K]``.
        temperature: T, above 0.

    Returns:
        A scalar, float32 at least.

    Raises:
        ValueError: Shapes differ, are empty or not of rank 2; a temperature out of range.
    """
    check_logits(student, teacher)
    student, teacher = (_centred(x) for x in (student, teacher))
    norm = teacher.norm(dim=1).mean()
    return kd(norm * unit_vectors(student), norm * unit_vectors(teacher), temperature)


def _centred(logits: Tensor) -> Tensor:
    logits = at_least_float32(logits)
    return logits - logits.mean(dim=1, keepdim=True)


@MODELS.register_module()
class SphericalKDLoss(KDLoss):
    """:func:`spherical_kd` as a module; its settings and shapes are those of KD."""

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return spherical_kd(student, teacher, self.temperature)
