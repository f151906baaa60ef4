"""The teacher's decisions as labels: DeiT (Touvron et al., 2021)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from mmkd.losses.base import Loss, Takes
from mmkd.numerics import at_least_float32, check_logits
from mmkd.registry import MODELS

__all__ = ["HardDistillationLoss", "hard_distillation"]


def hard_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """``1/N sum_i CE(s_i, argmax_k t_ik)``: the teacher's decisions as labels (DeiT, Eq. (3)).

    Args:
        student, teacher: Logits ``[N, K]``.

    Returns:
        A scalar, float32 at least.

    Raises:
        ValueError: Shapes differ, are empty or not of rank 2.
    """
    check_logits(student, teacher)
    return cross_entropy(at_least_float32(student), teacher.argmax(dim=1))


@MODELS.register_module()
class HardDistillationLoss(Loss):
    """:func:`hard_distillation` as a module.

    Shapes: logits ``[N, K]`` and ``[N, K]`` to a scalar.

    Raises:
        ValueError: Shapes that differ, are empty or not of rank 2.
    """

    takes = Takes(form="logits")

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return hard_distillation(student, teacher)
