"""What a finished run came to, as a recipe notes it in ``result.json``."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from mmkd.input_files import read_text
from mmkd.work_dirs.run_files import DETECTIONS, RESULT

__all__ = ["RunResult", "is_finished"]


@dataclass(frozen=True)
class RunResult:
    """One trained and evaluated network.

    What comes after ``work_dir`` is unknown of runs that earlier versions made; see
    :class:`mmkd.runs.recipe.Trained`.
    """

    name: str
    seed: int
    scores: dict[str, float]
    parameters: int
    training_seconds: float
    checkpoint: str
    work_dir: str
    iterations: int | None = None
    annotations: str | None = None
    images: str | None = None
    initial_weights: str | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def detections(self) -> Path:
        """A detector's detections on the validation images, in COCO's result format."""
        return Path(self.work_dir) / DETECTIONS


def is_finished(work_dir: Path) -> bool:
    """Whether a run of mmkd's, whichever, was finished there."""
    try:
        return "fingerprint" in dict(json.loads(read_text(work_dir / RESULT)))
    except (OSError, ValueError, TypeError, RecursionError):
        return False
