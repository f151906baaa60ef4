"""Distillation in MMEngine's trainer: MMDetection, MMPretrain and their relatives."""

from mmkd.engine.mmengine.alignment_hook import ClassifierAlignmentHook
from mmkd.engine.mmengine.distill_hook import DistillHook
from mmkd.engine.mmengine.dynamics_hook import DynamicsHook

__all__ = ["ClassifierAlignmentHook", "DistillHook", "DynamicsHook"]
