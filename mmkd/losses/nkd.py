"""Normalised distillation: Yang et al., *From Knowledge Distillation to Self-Knowledge
Distillation: A Unified Approach with Normalized Loss and Customized Soft Labels* (ICCV
2023)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import log_softmax, softmax

from mmkd.losses.base import Takes, TemperatureLoss
from mmkd.numerics import at_least_float32, check_factors, check_logits, check_temperature
from mmkd.registry import MODELS
from mmkd.targets import Targets, target_and_others

__all__ = ["NKDLoss", "normalised_kd"]


def normalised_kd(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    gamma: float = 1.5,
    temperature: float = 1.0,
) -> Tensor:
    """``- mean t_k log s_k - gamma T^2 mean sum_(i != k) t'_i log s'_i``, k an image's class.

    s and t are probabilities at temperature 1, s' and t' those of the other classes among
    themselves at T. The paper's NKD without the cross-entropy that stands beside it there. No
    divergence: of equal sides, the teacher's entropy is left.

    Args:
        student, teacher: Logits ``[N, K]``.
        labels: ``[N]``, each image's class.
        gamma: Of the other classes, 0 or more.
        temperature: T, above 0.

    Returns:
        A scalar, float32 at least.

    Raises:
        ValueError: Shapes differ, are empty or not of rank 2; fewer than two classes; other labels
            than rows; a setting out of range.
    """
    _check(gamma, temperature)
    check_logits(student, teacher)
    student, teacher = at_least_float32(student), at_least_float32(teacher)
    ours, _ = target_and_others(log_softmax(student, dim=1), labels)
    theirs, _ = target_and_others(softmax(teacher, dim=1), labels)
    _, rest = target_and_others(student / temperature, labels)
    _, their_rest = target_and_others(teacher / temperature, labels)
    others = (softmax(their_rest, dim=1) * log_softmax(rest, dim=1)).sum(dim=1)
    return -(theirs * ours).mean() - gamma * temperature**2 * others.mean()


def _check(gamma: float, temperature: float) -> None:
    check_factors(gamma=gamma)
    check_temperature(temperature)


@MODELS.register_module()
class NKDLoss(TemperatureLoss):
    """:func:`normalised_kd` as a module. The defaults are the authors' for ImageNet; on CIFAR-100
    they have gamma 3.5 and temperature 3.

    Args:
        gamma: Of the other classes, 0 or more.
        temperature: T, above 0.

    Shapes: logits ``[N, K]`` and ``[N, K]`` with the labels of N images to a scalar.

    Raises:
        ValueError: A setting out of range; shapes that differ, are empty or not of rank 2; a
            training whose batches hold no labels, or mixed ones.
    """

    takes = Takes(form="logits", targets=("labels",))

    def __init__(self, gamma: float = 1.5, temperature: float = 1.0) -> None:
        super().__init__(temperature)
        _check(gamma, temperature)
        self.gamma = gamma

    def forward(self, student: Tensor, teacher: Tensor, *, targets: Targets) -> Tensor:
        labels = targets.one_class_each("NKDLoss")
        return normalised_kd(student, teacher, labels, self.gamma, self.temperature)
