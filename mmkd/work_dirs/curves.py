"""Curves of a training: series of values by iteration or epoch, in groups."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["MAP_CURVES", "TASK_LOSS", "Curve", "CurveBuilder", "Group", "Step", "number"]

Group = Literal[
    "task loss", "distillation", "weight", "share", "ratio", "learning rate", "score", "dynamics"
]
Step = Literal["iteration", "epoch"]

# The sum of the training's own losses, without distillation: comparable among runs.
TASK_LOSS = "task_loss"
# COCO's mAP, as MMDetection and Ultralytics name it.
MAP_CURVES = ("coco/bbox_mAP", "metrics/mAP50-95(B)")


@dataclass(frozen=True)
class Curve:
    """One series.

    Args:
        name: As its trainer logs it.
        group: What it tells of.
        step: What its points count.
        points: Step and value, ascending by step; finite, scores in percent.
    """

    name: str
    group: Group
    step: Step
    points: list[tuple[float, float]]


class CurveBuilder:
    """Collects values one after another; what is not finite is counted and left out."""

    def __init__(self) -> None:
        self._points: dict[str, dict[float, float]] = {}
        self._kinds: dict[str, tuple[Group, Step]] = {}
        self._left_out: Counter[str] = Counter()

    def add(self, name: str, group: Group, step: Step, at: float, value: float) -> None:
        """Adds a point; of two at one step the later one counts."""
        if not math.isfinite(value):
            self._left_out[name] += 1
            return
        self._kinds[name] = (group, step)
        self._points.setdefault(name, {})[at] = value

    def go_on_with(self, later: CurveBuilder) -> None:
        """Appends those of a resumed training, which replace what lies behind the resumption."""
        for name, points in later._points.items():
            own = self._points.get(name, {}) if self._kinds.get(name) == later._kinds[name] else {}
            self._points[name] = {at: v for at, v in own.items() if at < min(points)} | points
        self._kinds |= later._kinds
        self._left_out += later._left_out

    def curves(self) -> list[Curve]:
        """In the order in which their first values came."""
        return [
            Curve(name, *self._kinds[name], points=sorted(points.items()))
            for name, points in self._points.items()
        ]

    def notes(self) -> list[str]:
        """What was left out, for people."""
        return [
            f"{name}: {count} value{'s' * (count > 1)} left out, not finite"
            for name, count in self._left_out.items()
        ]


def number(value: Any) -> float | None:
    """A logged number; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf
