"""Distances between student and teacher, one family a file.

Every loss is ``loss(student, teacher) -> scalar``, free of weights, computed in float32 at least.
Those with ``takes_logits`` compare logits as they are; those with ``takes_labels`` are also given
``labels=``.
"""

from mmkd.losses.classifier_reuse import JointClassifierLoss, SoftmaxRegressionLoss
from mmkd.losses.direction_alignment import DirectionAlignmentLoss
from mmkd.losses.kd import HardDistillationLoss, KDLoss
from mmkd.losses.l2 import L2Loss, MSELoss
from mmkd.losses.logsum import CorrelationLogSumLoss, LogSumLoss

__all__ = [
    "CorrelationLogSumLoss",
    "DirectionAlignmentLoss",
    "HardDistillationLoss",
    "JointClassifierLoss",
    "KDLoss",
    "L2Loss",
    "LogSumLoss",
    "MSELoss",
    "SoftmaxRegressionLoss",
]
