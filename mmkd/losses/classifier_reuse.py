"""Losses that look at features through a classifier: SRRL (Yang et al., ICLR 2021) and the joint
classifier of IJCKD (Li et al., arXiv 2304.11004)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from mmkd.losses.l2 import mse
from mmkd.numerics import at_least_float32, check_pair
from mmkd.registry import MODELS

__all__ = [
    "JointClassifierLoss",
    "SoftmaxRegressionLoss",
    "joint_classifier",
    "softmax_regression",
]

Classifier = Callable[[Tensor], Tensor]


def softmax_regression(
    student: Tensor,
    teacher: Tensor,
    classifier: Classifier,
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


def joint_classifier(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    classifier: Classifier,
    logit_weight: float = 1.0,
) -> Tensor:
    """``CE(g(t), y) + b MSE(g(s), g(t))``, the part of the ideal joint classifier's risk that the
    student's own cross-entropy CE(g(s), y) leaves out (Definition 2), and the discrepancy of its
    logits on both representations.

    Args:
        student: Connected samples ``[M, C]``.
        teacher: Samples ``[M, C]``.
        labels: y, class indices ``[M]`` or probabilities ``[M, K]``.
        classifier: g, trained on both sides.
        logit_weight: b.

    Returns:
        A scalar, float32 at least.

    Raises:
        ValueError: Shapes differ or are empty.
    """
    check_pair(student, teacher)
    student, teacher = at_least_float32(student), at_least_float32(teacher)
    logits = classifier(teacher)
    return cross_entropy(logits, labels) + logit_weight * mse(classifier(student), logits)


class _WithClassifier(nn.Module):
    def __init__(self, classifier: nn.Module, num_channels: int | None) -> None:
        super().__init__()
        if not isinstance(classifier, nn.Linear):
            raise ValueError(
                f"the classifier must be a linear layer, got a {type(classifier).__name__}"
            )
        if num_channels is not None and classifier.in_features != num_channels:
            raise ValueError(
                f"the classifier takes {classifier.in_features} channels, the teacher's feature "
                f"has {num_channels}: tap what it classifies (backbone, with view='global')"
            )
        # Not a submodule: it belongs to the model it was taken from.
        self._classifier = (classifier,)

    def _classify(self, samples: Tensor) -> Tensor:
        # Not by a call: what the model's own call of it gave stays what is tapped.
        layer = self._classifier[0]
        bias = None if layer.bias is None else layer.bias.to(samples.dtype)
        return linear(samples, layer.weight.to(samples.dtype), bias)


@MODELS.register_module()
class SoftmaxRegressionLoss(_WithClassifier):
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
            student, teacher, self._classify, self.feature_weight, self.logit_weight
        )


@MODELS.register_module()
class JointClassifierLoss(_WithClassifier):
    """:func:`joint_classifier` as a module.

    Args:
        student_classifier: The student's trainable last linear layer; in a term, its path.
        logit_weight: Of the logits' discrepancy.
        num_channels: C, checked against the classifier.

    Shapes: ``[M, C]``, ``[M, C]`` and labels ``[M]`` or ``[M, K]`` to a scalar.

    Raises:
        ValueError: A classifier that is not linear, takes other channels or is frozen; shapes that
            differ.
    """

    takes_labels = True

    def __init__(
        self,
        student_classifier: nn.Module,
        logit_weight: float = 1.0,
        *,
        num_channels: int | None = None,
    ) -> None:
        super().__init__(student_classifier, num_channels)
        if not all(parameter.requires_grad for parameter in student_classifier.parameters()):
            raise ValueError(
                "the student's classifier is frozen, and a joint one is trained: set the head's "
                "freeze_classifier=False"
            )
        self.logit_weight = logit_weight

    def forward(self, student: Tensor, teacher: Tensor, *, labels: Tensor) -> Tensor:
        return joint_classifier(student, teacher, labels, self._classify, self.logit_weight)
