"""Distillation in MMEngine's Runner."""

from mmkd.engine.mmengine.alignment_hook import ClassifierAlignmentHook
from mmkd.engine.mmengine.distill_hook import DistillHook

__all__ = ["ClassifierAlignmentHook", "DistillHook"]
