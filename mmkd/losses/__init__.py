"""Distances between student and teacher, one method a file. Each is a :class:`Loss`."""

from mmkd.losses.at import ATLoss as ATLoss
from mmkd.losses.base import Loss as Loss
from mmkd.losses.base import Takes as Takes
from mmkd.losses.binary_kd import BinaryKDLoss as BinaryKDLoss
from mmkd.losses.cross_kd import CrossKDLoss as CrossKDLoss
from mmkd.losses.cwd import CWDLoss as CWDLoss
from mmkd.losses.direction_alignment import DirectionAlignmentLoss as DirectionAlignmentLoss
from mmkd.losses.dkd import DKDLoss as DKDLoss
from mmkd.losses.fbkd import FBKDLoss as FBKDLoss
from mmkd.losses.fgd import FGDLoss as FGDLoss
from mmkd.losses.fgfi import FGFILoss as FGFILoss
from mmkd.losses.hard_distillation import HardDistillationLoss as HardDistillationLoss
from mmkd.losses.joint_classifier import JointClassifierLoss as JointClassifierLoss
from mmkd.losses.kd import KDLoss as KDLoss
from mmkd.losses.l2 import L2Loss as L2Loss
from mmkd.losses.ld import LDLoss as LDLoss
from mmkd.losses.logsum import CorrelationLogSumLoss as CorrelationLogSumLoss
from mmkd.losses.logsum import LogSumLoss as LogSumLoss
from mmkd.losses.mgd import MGDLoss as MGDLoss
from mmkd.losses.mse import MSELoss as MSELoss
from mmkd.losses.pkd import PKDLoss as PKDLoss
from mmkd.losses.review_kd import ReviewKDLoss as ReviewKDLoss
from mmkd.losses.score_weighted_l2 import ScoreWeightedL2Loss as ScoreWeightedL2Loss
from mmkd.losses.softmax_regression import SoftmaxRegressionLoss as SoftmaxRegressionLoss
