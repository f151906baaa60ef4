"""Bars in rows, one a run in each, with their values and seeds: the parts of several figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from mmkd.evaluation.comparison import Comparison
from mmkd.report.figures.panels import LINE, seed_handles, seed_marks, tell, tidy, wrapped
from mmkd.report.style import GROUND, RunStyle, run_label

__all__ = [
    "BAR",
    "Bars",
    "bar_handles",
    "bars_of",
    "draw_bars",
    "row_label",
    "row_pitch",
    "with_values",
]

# Inches of a bar, and between rows.
BAR, _GAP = 0.17, 0.13
_LABEL_CHARACTERS = 22
# Of the longest bar's length, for what is printed beyond its end.
_ROOM = 1.18


@dataclass(frozen=True)
class Bars:
    """A run's bars.

    Args:
        name: Of the run.
        style: Of the run.
        values: One a row; nan where there is none.
        seeds: The values of which they are the means, row by row; empty with one seed.
        notes: Printed beside the bars, row by row; empty for none.
        bold: Which notes are bold; empty for none.
    """

    name: str
    style: RunStyle
    values: list[float]
    seeds: list[list[float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bold: list[bool] = field(default_factory=list)


def bars_of(
    comparison: Comparison,
    styles: Mapping[str, RunStyle],
    part: Literal["metrics", "classes"],
    names: Sequence[str],
) -> list[Bars]:
    """A bar a run for each of these metrics or classes."""
    drawn = []
    for run, style in styles.items():
        scores = [getattr(comparison.group(run), part)[name] for name in names]
        seeds = [score.values for score in scores if len(score.values) > 1]
        drawn.append(Bars(run, style, [score.mean for score in scores], seeds))
    return drawn


def with_values(bars: Iterable[Bars]) -> list[Bars]:
    """The values as notes."""
    return [replace(each, notes=[f"{value:.1f}" for value in each.values]) for each in bars]


def draw_bars(
    axis: Axes,
    labels: Sequence[str],
    bars: Sequence[Bars],
    thickness: float,
    pitch: float,
    *,
    is_beside: bool = True,
) -> None:
    """Draws rows of bars from the top.

    Args:
        axis: To draw on.
        labels: Of the rows.
        bars: Of the runs.
        thickness: Of a bar, in inches like the vertical axis.
        pitch: Of the rows.
        is_beside: The runs share rows, and their bars lie below each other.
    """
    middles = [(row + 0.5) * pitch for row in range(len(labels))]
    longest = 0.0
    for index, each in enumerate(bars):
        shift = (index - (len(bars) - 1) / 2) * thickness if is_beside else 0.0
        places = [middle + shift for middle in middles]
        longest = max(longest, _draw_run(axis, labels, each, places, thickness))
    axis.set_yticks(middles, labels)
    axis.tick_params(axis="y", length=0)
    # Axes may share their limits. Notes take room beyond the tips.
    end = max(_ROOM * longest, axis.get_xlim()[1])
    axis.set(ylim=(len(labels) * pitch, 0), xlim=(0, end))
    tidy(axis, "x")


def _draw_run(
    axis: Axes, labels: Sequence[str], bars: Bars, places: Sequence[float], thickness: float
) -> float:
    """Draws a run's bars, and returns how far they reach."""
    rows = [row for row, value in enumerate(bars.values) if not math.isnan(value)]
    container = axis.barh(
        [places[row] for row in rows],
        [bars.values[row] for row in rows],
        thickness,
        color=bars.style.color,
        hatch=bars.style.hatch,
        edgecolor=GROUND,
    )
    tips = [0.0]
    for row, patch in zip(rows, container, strict=True):
        value, seeds = bars.values[row], bars.seeds[row] if bars.seeds else []
        name = f"{bars.name}, {labels[row]}".replace("\n", " ").replace(r"\$", "$")
        tell(patch, bars.style, f"{name}: {value:,.1f}")
        if seeds:
            marks = seed_marks(seeds, [places[row]] * len(seeds))
            axis.add_line(marks)
            told = ", ".join(f"{seed:.1f}" for seed in seeds)
            tell(marks, bars.style, f"{name}, seeds: {told}")
        tips.append(max([value, *seeds]))
        if bars.notes:
            size = 9 if thickness >= BAR else 8
            _print(axis, bars, row, (tips[-1], places[row]), size)
    return max(tips)


def _print(axis: Axes, bars: Bars, row: int, tip: tuple[float, float], size: int) -> None:
    note = axis.annotate(
        bars.notes[row],
        tip,
        (4, 0),
        textcoords="offset points",
        va="center",
        fontsize=size,
        weight="bold" if bars.bold and bars.bold[row] else "normal",
    )
    tell(note, bars.style)


def row_label(name: str) -> str:
    """A name beside its row."""
    return wrapped(name, _LABEL_CHARACTERS)


def row_pitch(runs: int, labels: Iterable[str], thickness: float) -> float:
    """Of rows that hold a bar of each run, and their labels."""
    lines = max(label.count("\n") + 1 for label in labels)
    return max(runs * thickness, lines * LINE) + _GAP


def bar_handles(
    comparison: Comparison, styles: Mapping[str, RunStyle], *, seeds: bool = True
) -> dict[str, Artist]:
    """For a picture's legend.

    Args:
        comparison: Whose runs are drawn.
        styles: Of the runs.
        seeds: Say what the points on bars are.
    """
    handles: dict[str, Artist] = {
        run_label(name): Patch(facecolor=style.color, hatch=style.hatch, edgecolor=GROUND)
        for name, style in styles.items()
    }
    return handles | seed_handles(comparison, "one seed (bar: mean)") if seeds else handles
