"""USKD: Yang et al., *From Knowledge Distillation to Self-Knowledge Distillation: A Unified
Approach with Normalized Loss and Customized Soft Labels* (ICCV 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, softmax

from mmkd.distiller import Distiller, check_logits_come_last
from mmkd.features import pooled
from mmkd.initial_weights import initialize, linear_layer
from mmkd.losses.base import Takes
from mmkd.numerics import as_weights, at_least_float32, check_factors
from mmkd.registry import MODELS
from mmkd.targets import Targets, target_and_others

__all__ = ["USKDDistiller", "label_of_the_others", "label_of_the_target"]

_SMOOTHING = 0.1


def label_of_the_target(logits: Tensor, labels: Tensor) -> Tensor:
    """``P_n = s_n^2 + 1 - mean s^2``, with s_n the probability of image n's class.

    Args:
        logits: The student's, ``[N, K]``.
        labels: ``[N]``.

    Returns:
        ``[N]``, float32 at least; 1 on average.
    """
    squares = target_and_others(softmax(at_least_float32(logits), dim=1), labels)[0].square()
    return squares + 1 - squares.mean()


def label_of_the_others(logits: Tensor, weak: Tensor, labels: Tensor) -> Tensor:
    """``Z_ni = (1 / r_ni) / sum_j 1 / r_nj``, by Zipf's law, over the classes that are not image
    n's; r_ni is class i's rank among them (1, 2, ...) by the sum of what strong and weak logits
    make of it, each a distribution over these classes alone.

    Args:
        logits, weak: ``[N, K]``.
        labels: ``[N]``.

    Returns:
        ``[N, K - 1]``, float32 at least; rows sum to 1.
    """
    both = [target_and_others(at_least_float32(x), labels)[1] for x in (logits, weak)]
    likely = softmax(both[0], dim=1) + softmax(both[1], dim=1)
    order = likely.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(1, likely.shape[1] + 1, device=likely.device).to(likely)
    zipf = (1 / places) / (1 / places).sum()
    return torch.empty_like(likely).scatter_(1, order, zipf.expand_as(likely))


@MODELS.register_module()
class USKDDistiller(Distiller):
    """A student without a teacher, on soft labels that are made for it of its own logits.

    ``- target mean P_n log s_nk - others mean sum_i Z_ni log s'_ni + weak CE(w, y)``, beside the
    student's own cross-entropy: s are its probabilities, s' those of the other classes among
    themselves, P and Z the labels of :func:`label_of_the_target` and :func:`label_of_the_others`,
    without gradient, and w the logits of a linear classifier on a pooled feature from its middle,
    which smoothed labels (0.1) teach along. No divergence: it stays above 0.

    The authors' program ranks by logarithms where the paper (section 3.3) has probabilities, and
    counts the image's own class among the ranks; here it is as in the paper. A term names the
    feature and the logits, of the student itself::

        teacher=dict(student=True),
        terms=dict(uskd=dict(
            type="mmkd.USKDDistiller",
            student=["backbone.layer3", "head.fc"], teacher=["backbone.layer3", "head.fc"]))

    Args:
        student_channels: Of the feature, and the number of classes.
        target, others, weak: Factors; alpha, beta and mu in the paper, the defaults on ImageNet;
            0.1 each on CIFAR-100.
        weight: See :class:`mmkd.distiller.Distiller`.
        seed: Of initial weights.

    Shapes: ``[[N, C, H, W] or [N, C], [N, K]]`` with the labels of N images to a scalar.

    Raises:
        ValueError: Other than two features; a factor below 0; fewer than two classes; a training
            whose batches hold no labels, or mixed ones.
    """

    takes = Takes(form="logits", several_levels=True, targets=("labels",), own_widths=True)

    def __init__(
        self,
        student_channels: Sequence[int],
        target: float = 1.0,
        others: float = 0.1,
        weak: float = 0.005,
        weight: float | Mapping[str, Any] = 1.0,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(weight)
        check_factors(target=target, others=others, weak=weak)
        if len(student_channels) != 2:
            raise ValueError(
                "USKDDistiller takes two modules of the student, one from its middle and that of "
                f"its logits, got {len(student_channels)}"
            )
        self.target, self.others, self.weak = target, others, weak
        channels, classes = student_channels
        if classes < 2:
            raise ValueError(f"USKDDistiller needs logits of 2 classes or more, got {classes}")
        self.classifier = linear_layer(channels, classes)
        initialize(self, torch.Generator().manual_seed(seed))

    def check_features(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> None:
        """See :meth:`mmkd.distiller.Distiller.check_features`."""
        check_logits_come_last(self._method, student)

    def distance(
        self, student: Sequence[Tensor], teacher: Any = None, targets: Targets | None = None
    ) -> Tensor:
        """See :meth:`mmkd.distiller.Distiller.distance`; the teacher's side is not looked at."""
        labels = self._needed(targets).one_class_each("USKDDistiller")
        middle, logits = student[0], at_least_float32(student[1])
        vectors = as_weights(self, pooled(at_least_float32(middle)))
        weak = at_least_float32(self.classifier(vectors))
        soft_target = label_of_the_target(logits.detach(), labels)
        soft_others = label_of_the_others(logits.detach(), weak.detach(), labels)
        own, _ = target_and_others(log_softmax(logits, dim=1), labels)
        _, rest = target_and_others(logits, labels)
        of_the_others = (soft_others * log_softmax(rest, dim=1)).sum(dim=1)
        return (
            -self.target * (soft_target * own).mean()
            - self.others * of_the_others.mean()
            + self.weak * cross_entropy(weak, labels, label_smoothing=_SMOOTHING)
        )
