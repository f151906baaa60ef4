"""SRRL: Yang et al., *Softmax Regression Representation Learning* (ICLR 2021)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from mmkd.losses.classifier import ClassifierLoss
from mmkd.losses.mse import mse
from mmkd.numerics import at_least_float32
from mmkd.registry import MODELS

__all__ = ["SoftmaxRegressionLoss", "softmax_regression"]


def softmax_regression(
    student: Tensor,
    teacher: Tensor,
    classifier: Callable[[Tensor], Tensor],
    feature_weight: float = 1.0,
    logit_weight: float = 1.0,
) -> Tensor:
    """``a MSE(s, t) + b MSE(g(s), g(t))``: SRRL's feature matching and softmax regression.

    g is the teacher's classifier, so that g(t) are the teacher's logits. Both means go over all
    entries.

    Args:
        student: Projected samples ``[M, C]``.
        teacher: Samples ``[M, C]``.
        classifier: g, ``[M, C] -> [M, K]``.
        feature_weight, logit_weight: a and b.

    Returns:
        A scalar, float32 at least.

    Raises:
        ValueError: Shapes differ or are empty.
    """
    student, teacher = at_least_float32(student), at_least_float32(teacher)
    features = mse(student, teacher)
    return feature_weight * features + logit_weight * mse(classifier(student), classifier(teacher))


@MODELS.register_module()
class SoftmaxRegressionLoss(ClassifierLoss):
    """:func:`softmax_regression` as a module.

    Args:
        teacher_classifier: The teacher's last linear layer; in a term, its path.
        feature_weight, logit_weight: Of the two parts.
        num_channels: C, checked against the classifier.

    Shapes: ``[M, C]`` and ``[M, C]`` to a scalar.

    Raises:
        ValueError: A classifier that is not linear or takes other channels; shapes that differ.
    """

    def __init__(
        self,
        teacher_classifier: nn.Module,
        feature_weight: float = 1.0,
        logit_weight: float = 1.0,
        *,
        num_channels: int | None = None,
    ) -> None:
        super().__init__(teacher_classifier, num_channels)
        self.feature_weight, self.logit_weight = feature_weight, logit_weight

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return softmax_regression(
            student, teacher, self.classify, self.feature_weight, self.logit_weight
        )
