"""Distances between student and teacher, one family a file.

Every loss is ``loss(student, teacher) -> scalar``, free of weights, computed in float32 at least.
"""

from mmkd.losses.direction_alignment import DirectionAlignmentLoss
from mmkd.losses.l2 import L2Loss
from mmkd.losses.logsum import CorrelationLogSumLoss, LogSumLoss

__all__ = ["CorrelationLogSumLoss", "DirectionAlignmentLoss", "L2Loss", "LogSumLoss"]
