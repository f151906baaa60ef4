"""Distillation of logits that each stand for a yes or no, as detectors' heads give them."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from mmkd.losses.base import Takes, TemperatureLoss
from mmkd.numerics import at_least_float32, check_logits, check_temperature
from mmkd.registry import MODELS

__all__ = ["BinaryKDLoss", "binary_kd"]


def binary_kd(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """``T^2 mean KL(Bernoulli(sigmoid(t / T)) || Bernoulli(sigmoid(s / T)))`` over all entries.

    Hinton et al. (2015) for classes that do not exclude each other; the binary cross-entropy of the
    student's probabilities to the teacher's, less its least value.

    Args:
        student, teacher: Logits ``[M, K]``.
        temperature: T, above 0.

    Returns:
        A scalar, float32 at least.

    Raises:
        ValueError: Shapes differ, are empty or not of rank 2; a temperature out of range.
    """
    check_temperature(temperature)
    check_logits(student, teacher)
    s, t = (at_least_float32(x) / temperature for x in (student, teacher))
    yes = t.sigmoid() * (logsigmoid(t) - logsigmoid(s))
    no = (-t).sigmoid() * (logsigmoid(-t) - logsigmoid(-s))
    return (yes + no).mean() * temperature**2


@MODELS.register_module()
class BinaryKDLoss(TemperatureLoss):
    """:func:`binary_kd` as a module, for ``'head.classes'`` and ``'rpn.objectness'``.

    Args:
        temperature: T, above 0.

    Shapes: logits ``[M, K]`` and ``[M, K]`` to a scalar.

    Raises:
        ValueError: A temperature out of range; shapes that differ, are empty or not of rank 2.
    """

    takes = Takes(form="logits")

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return binary_kd(student, teacher, self.temperature)
