"""Decoupled distillation: Zhao et al., *Decoupled Knowledge Distillation* (CVPR 2022)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from mmkd.losses.base import Loss, Takes
from mmkd.numerics import at_least_float32, check_factors, check_logits, check_temperature
from mmkd.registry import MODELS
from mmkd.targets import Targets, target_and_others

__all__ = ["DKDLoss", "decoupled_kd"]


def decoupled_kd(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
) -> Tensor:
    """``T^2 (alpha TCKD + beta NCKD)``, each the mean of a KL divergence over rows.

    TCKD compares the target class with all others together, NCKD the others among themselves
    (Eq. (7)): KD would weigh the latter by the teacher's doubt, which is small where it is right.

    Args:
        student, teacher: Logits ``[M, K]``.
        labels: ``[M]``, each row's target class.
        alpha, beta: 0 or more.
        temperature: T, above 0.

    Returns:
        A scalar, float32 at least.

    Raises:
        ValueError: Shapes differ, are empty or not of rank 2; fewer than two classes; other labels
            than rows; a setting out of range.
    """
    _check(alpha, beta, temperature)
    check_logits(student, teacher)
    target, others = zip(
        *(_decoupled(x, labels, temperature) for x in (student, teacher)), strict=True
    )
    tckd, nckd = (
        kl_div(ours, theirs, log_target=True, reduction="batchmean")
        for ours, theirs in (target, others)
    )
    return (alpha * tckd + beta * nckd) * temperature**2


def _decoupled(logits: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Logarithms of the two probabilities ``[M, 2]`` and of those of the others ``[M, K - 1]``."""
    target, others = target_and_others(at_least_float32(logits) / temperature, labels)
    pair = torch.stack([target, others.logsumexp(dim=1)], dim=1)
    return log_softmax(pair, dim=1), log_softmax(others, dim=1)


def _check(alpha: float, beta: float, temperature: float) -> None:
    check_factors(alpha=alpha, beta=beta)
    check_temperature(temperature)


@MODELS.register_module()
class DKDLoss(Loss):
    """:func:`decoupled_kd` as a module.

    The defaults are the paper's for CIFAR-100; for ImageNet beta 0.5 and T 1; for the regions of
    Faster R-CNN (``'roi.classes'``) beta 0.25 and T 1.

    Args:
        alpha: Of the target against the rest.
        beta: Within the rest.
        temperature: T, above 0.
        of: Whose labels: the ``'images'``, or the ``'regions'`` of a detector's head, the
            background among the classes.

    Shapes: logits ``[M, K]`` and ``[M, K]`` with the labels of M images, or the boxes of N images
    and M regions, to a scalar.

    Raises:
        ValueError: A setting out of range; shapes that differ, are empty or not of rank 2; a
            training whose batches hold no labels.
    """

    takes = Takes(form="logits", targets=("labels",))

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 8.0,
        temperature: float = 4.0,
        of: Literal["images", "regions"] = "images",
    ) -> None:
        super().__init__()
        _check(alpha, beta, temperature)
        if of not in ("images", "regions"):
            raise ValueError(f"of must be 'images' or 'regions', got {of!r}")
        self.alpha, self.beta, self.temperature, self.of = alpha, beta, temperature, of
        if of == "regions":
            self.takes = Takes(form="logits", targets=("boxes", "regions"))

    def forward(self, student: Tensor, teacher: Tensor, *, targets: Targets) -> Tensor:
        if self.of == "regions":
            labels = targets.region_labels(student.shape[1] - 1)
        else:
            labels = targets.one_class_each("DKDLoss")
        return decoupled_kd(student, teacher, labels, self.alpha, self.beta, self.temperature)
