"""Curves of the training, which the page draws so that a pointer can read, zoom and hide them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmkd.report.numbers import undefined_or
from mmkd.report.style import RunStyle
from mmkd.work_dirs import WorkDir

__all__ = ["MAX_POINTS", "CurveChart", "Line", "curve_charts", "curve_looks"]

MAX_POINTS = 400
# Fewer points are seen one by one.
_FEW = 30
# The page's lines are 1.5 pixels wide.
_LINE_WIDTH = 1.5

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """A run's curve, with at most :data:`MAX_POINTS` points.

    Args:
        run: Index of its :class:`mmkd.report.style.RunStyle`.
        name: Of the run, with its seed.
        x: Steps, ascending.
        y: Values.
    """

    run: int
    name: str
    x: list[float]
    y: list[float]


@dataclass(frozen=True)
class CurveChart:
    """A chart of curves of one name.

    Args:
        key: Unique in the page.
        title: Above it.
        description: What it shows, in words, for whoever does not see it.
        step: What the horizontal axis counts.
        lines: One a run.
    """

    key: str
    title: str
    description: str
    step: str
    lines: list[Line]

    def as_json(self) -> dict[str, Any]:
        """What the browser needs, as plain values."""
        return dict(step=self.step, lines=[vars(line) for line in self.lines])


def curve_charts(
    work_dirs: Sequence[WorkDir], styles: Mapping[str, RunStyle], group: str
) -> list[CurveChart]:
    """One chart for each curve of a group, with a line for each run.

    Args:
        work_dirs: Runs of one name are seeds, and drawn alike.
        styles: By the runs' names.
        group: See :class:`mmkd.work_dirs.Curve`.
    """
    found: dict[tuple[str, str], list[tuple[WorkDir, Points]]] = {}
    for work_dir in work_dirs:
        for curve in work_dir.curves:
            if curve.group == group and curve.points:
                found.setdefault((curve.name, curve.step), []).append((work_dir, curve.points))
    counts = Counter(name for name, _ in found)
    return [
        CurveChart(
            f"{group.replace(' ', '-')}-{index}",
            name if counts[name] == 1 else f"{name} by {step}",
            _description(name, step, of_curve),
            step,
            [_line(work_dir, points, styles) for work_dir, points in of_curve],
        )
        for index, ((name, step), of_curve) in enumerate(found.items())
    ]


def curve_looks(styles: Iterable[RunStyle]) -> list[dict[str, Any]]:
    """How the browser draws the lines of each run, by the run's index; colours are the page's."""
    return [
        dict(dash=[_LINE_WIDTH * each for each in style.dash], marker=style.marker_path, few=_FEW)
        for style in styles
    ]


def _line(work_dir: WorkDir, points: Points, styles: Mapping[str, RunStyle]) -> Line:
    seed = "" if work_dir.seed is None else f", seed {work_dir.seed}"
    kept = _thinned(points)
    return Line(
        styles[work_dir.name].index,
        f"{work_dir.name}{seed}",
        [_rounded(x, 9) for x, _ in kept],
        [_rounded(y, 4) for _, y in kept],
    )


def _thinned(points: Points) -> Points:
    """At most :data:`MAX_POINTS`, evenly, the first and the last among them."""
    if len(points) <= MAX_POINTS:
        return points
    return [points[i] for i in np.linspace(0, len(points) - 1, MAX_POINTS).round().astype(int)]


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")


def _description(name: str, step: str, lines: Sequence[tuple[WorkDir, Points]]) -> str:
    ends: dict[str, list[tuple[float, float]]] = {}
    for work_dir, points in lines:
        ends.setdefault(work_dir.name, []).append((points[0][1], points[-1][1]))
    means = {run: np.mean(values, axis=0) for run, values in ends.items()}
    texts = [
        f"{run} from {undefined_or(first)} to {undefined_or(last)}"
        for run, (first, last) in means.items()
    ]
    return f"Line chart of {name} by {step}: {'; '.join(texts)}."
