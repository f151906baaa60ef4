"""What a training is, in any framework, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mmkd.runs.fingerprint import ImageFiles
from mmkd.runs.record import TrainingRecord
from mmkd.work_dirs.environment import describe_environment

__all__ = ["Recipe", "Trained"]


@dataclass(frozen=True)
class Trained:
    """What a training leaves.

    Args:
        parameters: Of the network as it is deployed.
        training_seconds: Without evaluation.
        checkpoint: File of the weights.
        scores: Of these weights, in percent by metric.
        iterations: Of the training, where there was one.
        annotations: COCO file of the images on which a detector was scored.
        images: Folder of these.
        initial_weights: :func:`mmkd.runs.record.weights_digest` of the network as training began.
        environment: In which it was trained.
    """

    parameters: int
    training_seconds: float
    checkpoint: str
    scores: dict[str, float]
    iterations: int | None = None
    annotations: str | None = None
    images: str | None = None
    initial_weights: str | None = None
    environment: dict[str, str] = field(default_factory=describe_environment)


class Recipe(Protocol):
    """Settings of one training, in any framework."""

    @property
    def seed(self) -> int:
        """Of the run."""

    @property
    def work_dir(self) -> Path:
        """Where everything of the run goes."""

    @property
    def iterations(self) -> int:
        """Training iterations."""

    def content(self) -> dict[str, Any]:
        """All settings that matter for the outcome but the seed, as plain values."""

    def files(self) -> dict[str, Path | ImageFiles]:
        """What it reads besides the files that its settings name, by what that is to the run."""

    def train(self, on_iteration: Callable[[], None], record: TrainingRecord) -> Trained:
        """Trains, and scores what was trained.

        A training that ``record`` says was started before goes on from its last checkpoint, if it
        then ends as if it had never been interrupted; otherwise it begins again.

        Args:
            on_iteration: To be called after every training iteration.
            record: To be kept up to date.
        """
