"""The joint classifier of IJCKD (Li et al., arXiv 2304.11004)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mmkd.losses.base import Takes
from mmkd.losses.classifier import ClassifierLoss
from mmkd.losses.mse import mse
from mmkd.numerics import at_least_float32, check_pair
from mmkd.registry import MODELS
from mmkd.targets import Targets

__all__ = ["JointClassifierLoss", "joint_classifier"]


def joint_classifier(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    classifier: Callable[[Tensor], Tensor],
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


@MODELS.register_module()
class JointClassifierLoss(ClassifierLoss):
    """:func:`joint_classifier` as a module.

    Args:
        student_classifier: The student's trainable last linear layer; in a term, its path.
        logit_weight: Of the logits' discrepancy.
        num_channels: C, checked against the classifier.

    Shapes: ``[M, C]``, ``[M, C]`` and targets with labels ``[M]`` or ``[M, K]`` to a scalar.

    Raises:
        ValueError: A classifier that is not linear, takes other channels or is frozen; shapes that
            differ; another number of labels than of samples.
    """

    takes = Takes(targets=("labels",))

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

    def forward(self, student: Tensor, teacher: Tensor, *, targets: Targets) -> Tensor:
        labels = targets.labels
        if len(labels) != len(student):
            raise ValueError(
                f"JointClassifierLoss needs a label for each of {len(student)} samples, got "
                f"{len(labels)}: use it on a classifier, with view='global'"
            )
        return joint_classifier(student, teacher, labels, self.classify, self.logit_weight)
