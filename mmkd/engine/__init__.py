"""Adapters, one file per trainer. They hold no mathematics."""

from mmkd.engine.mmengine.alignment_hook import ClassifierAlignmentHook
from mmkd.engine.mmengine.distill_hook import DistillHook

__all__ = ["ClassifierAlignmentHook", "DistillHook"]
