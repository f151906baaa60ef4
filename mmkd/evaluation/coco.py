"""COCO average precision of a detection file, by pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

__all__ = ["CocoScores", "evaluate_detections"]


@dataclass(frozen=True)
class CocoScores:
    """Box AP in percent: over IoU 0.50 to 0.95, at 0.50 and at 0.75."""

    mAP: float
    AP50: float
    AP75: float

    def as_dict(self) -> dict[str, float]:
        """The scores by name."""
        return asdict(self)


def evaluate_detections(annotations: str | Path, detections: str | Path) -> CocoScores:
    """Scores a file of detections in COCO's result format.

    Args:
        annotations: COCO annotation file.
        detections: JSON list of ``image_id``, ``category_id``, ``bbox`` (x, y, width, height in
            pixels) and ``score``. An empty list scores 0.

    Raises:
        FileNotFoundError: One of the files is missing.
    """
    found = json.loads(Path(detections).read_text())
    if not found:
        return CocoScores(0.0, 0.0, 0.0)
    # pycocotools prints its progress.
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    mean, at_50, at_75 = (100 * float(value) for value in evaluation.stats[:3])
    return CocoScores(mean, at_50, at_75)
