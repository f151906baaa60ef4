"""Distillation of logits: Hinton et al. (2015), and DeiT's hard form (Touvron et al., 2021)."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from mmkd.numerics import at_least_float32, check_pair
from mmkd.registry import MODELS

__all__ = ["HardDistillationLoss", "KDLoss", "hard_distillation", "kd"]


def _check_logits(student: Tensor, teacher: Tensor) -> None:
    check_pair(student, teacher)
    if student.ndim != 2:
        raise ValueError(f"expected logits [N, K], got {tuple(student.shape)}")


def _check_temperature(temperature: float) -> None:
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be above 0 and finite, got {temperature}")


def kd(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """``T^2 / N sum_i KL(softmax(t_i / T) || softmax(s_i / T))``.

    T^2 keeps the gradient's size when the temperature changes (Hinton et al., section 2).

    Args:
        student, teacher: Logits ``[N, K]``.
        temperature: T, above 0.

    Returns:
        A scalar, float32 at least.

    Raises:
        ValueError: Shapes differ, are empty or not of rank 2; a temperature out of range.
    """
    _check_temperature(temperature)
    _check_logits(student, teacher)
    log_p = log_softmax(at_least_float32(student) / temperature, dim=1)
    log_q = log_softmax(at_least_float32(teacher) / temperature, dim=1)
    return kl_div(log_p, log_q, log_target=True, reduction="batchmean") * temperature**2


def hard_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """``1/N sum_i CE(s_i, argmax_k t_ik)``: the teacher's decisions as labels (DeiT, Eq. (3)).

    Args:
        student, teacher: Logits ``[N, K]``.

    Returns:
        A scalar, float32 at least.

    Raises:
        ValueError: Shapes differ, are empty or not of rank 2.
    """
    _check_logits(student, teacher)
    return cross_entropy(at_least_float32(student), teacher.argmax(dim=1))


@MODELS.register_module()
class KDLoss(nn.Module):
    """:func:`kd` as a module. DeiT's soft distillation is the same with temperature 3.

    Args:
        temperature: T, above 0.

    Shapes: logits ``[N, K]`` and ``[N, K]`` to a scalar.

    Raises:
        ValueError: A temperature out of range; shapes that differ, are empty or not of rank 2.
    """

    takes_logits = True

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        _check_temperature(temperature)
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return kd(student, teacher, self.temperature)


@MODELS.register_module()
class HardDistillationLoss(nn.Module):
    """:func:`hard_distillation` as a module.

    Shapes: logits ``[N, K]`` and ``[N, K]`` to a scalar.

    Raises:
        ValueError: Shapes that differ, are empty or not of rank 2.
    """

    takes_logits = True

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return hard_distillation(student, teacher)
