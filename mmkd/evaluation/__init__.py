"""COCO evaluation and pictures of its results."""

from mmkd.extras import extra

# Here, and so for every module of the room.
with extra("eval", "COCO's evaluation"):
    from mmkd.evaluation.coco import CocoScores, evaluate_detections

__all__ = ["CocoScores", "evaluate_detections"]
