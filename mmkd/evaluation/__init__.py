"""COCO evaluation and pictures of its results."""

from mmkd.evaluation.coco import CocoScores, evaluate_detections

__all__ = ["CocoScores", "evaluate_detections"]
