"""Adapters, one file per trainer. They hold no mathematics."""

from mmkd.engine.alignment_hook import ClassifierAlignmentHook
from mmkd.engine.distill_hook import DistillHook

__all__ = ["ClassifierAlignmentHook", "DistillHook"]
