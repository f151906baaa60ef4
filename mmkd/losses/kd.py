"""Distillation of logits: Hinton et al., *Distilling the Knowledge in a Neural Network* (2015)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from mmkd.losses.base import Takes, TemperatureLoss
from mmkd.numerics import at_least_float32, check_logits, check_temperature
from mmkd.registry import MODELS

__all__ = ["KDLoss", "kd"]


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
    check_temperature(temperature)
    check_logits(student, teacher)
    log_p = log_softmax(at_least_float32(student) / temperature, dim=1)
    log_q = log_softmax(at_least_float32(teacher) / temperature, dim=1)
    return kl_div(log_p, log_q, log_target=True, reduction="batchmean") * temperature**2


@MODELS.register_module()
class KDLoss(TemperatureLoss):
    """:func:`kd` as a module. DeiT's soft distillation is the same with temperature 3.

    Args:
        temperature: T, above 0.

    Shapes: logits ``[N, K]`` and ``[N, K]`` to a scalar.

    Raises:
        ValueError: A temperature out of range; shapes that differ, are empty or not of rank 2.
    """

    takes = Takes(form="logits")

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__(temperature)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return kd(student, teacher, self.temperature)
