"""Bars of the runs' mAP, of precision and recall by the objects' size, and of errors by type."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from matplotlib.axes import Axes

from mmkd.evaluation.coco import COCO_AREAS
from mmkd.evaluation.comparison import Comparison
from mmkd.evaluation.detection_errors import ERROR_TYPES
from mmkd.report.figures.bars import (
    BAR,
    Bars,
    bar_handles,
    bars_of,
    draw_bars,
    row_label,
    row_pitch,
    with_values,
)
from mmkd.report.figures.panels import Panel, Plot, seed_handles
from mmkd.report.numbers import undefined_or
from mmkd.report.style import RunStyle

__all__ = ["error_plot", "score_plot", "size_plot"]

ERROR_NOTES = {
    "classification": "wrong class",
    "localisation": "box too far off",
    "both": "wrong class and box",
    "duplicate": "object found before",
    "background": "nothing there",
    "missed": "object not found",
}
# In inches.
_WIDE_BAR = 0.28


def score_plot(
    comparison: Comparison,
    styles: Mapping[str, RunStyle],
    label: Callable[[str], str] = str,
) -> Plot | None:
    """mAP of each run, a bar each, and of its seeds.

    Args:
        comparison: What to draw.
        styles: Of its runs, in their order.
        label: What a run is called beside its bar.

    Returns:
        None where there is no mAP.
    """
    scores = {name: comparison.group(name).metrics["mAP"] for name in styles}
    if all(math.isnan(score.mean) for score in scores.values()):
        return None
    labels = [row_label(label(name)) for name in scores]
    pitch = row_pitch(1, labels, _WIDE_BAR)

    def draw(axis: Axes) -> None:
        bars = []
        for row, (name, score) in enumerate(scores.items()):
            values = [math.nan] * len(scores)
            seeds: list[list[float]] = [[] for _ in scores]
            values[row], seeds[row] = score.mean, score.values if len(score.values) > 1 else []
            bars.append(Bars(name, styles[name], values, seeds))
        draw_bars(axis, labels, with_values(bars), _WIDE_BAR, pitch, is_beside=False)
        axis.set_xlabel("mAP (IoU 0.50:0.95), %")

    text = "; ".join(f"{name} {undefined_or(score.mean)} mAP" for name, score in scores.items())
    panel = Panel("map", "", "mAP of each run", f"Bars: {text}.", len(labels) * pitch, draw)
    return Plot("mAP of each run", [panel], seed_handles(comparison, "one seed (bar: mean)"))


def size_plot(comparison: Comparison, styles: Mapping[str, RunStyle]) -> Plot | None:
    """Average precision and average recall by the settings' ranges of the objects' area.

    Ranges without objects are left out.

    Returns:
        None where there are no ranges or no objects in them.
    """
    areas = {
        name: ends
        for name, ends in comparison.settings.areas.items()
        if name != "all" and _is_known(comparison, f"AP_{name}")
    }
    if not areas:
        return None
    found = {
        kind: with_values(
            bars_of(comparison, styles, "metrics", [f"{kind}_{name}" for name in areas])
        )
        for kind in ("AP", "AR")
    }
    labels = [f"{row_label(name)}\n{_range(*ends)}" for name, ends in areas.items()]
    limit = f", {comparison.settings.max_detections[-1]} detections"
    panels = [
        _size_panel(kind, what, some, list(areas), labels, found[kind])
        for kind, what, some in (("AP", "average precision", ""), ("AR", "average recall", limit))
    ]
    return Plot(
        "AP and AR by the objects' area", panels, bar_handles(comparison, styles), ("x", "y")
    )


def _is_known(comparison: Comparison, metric: str) -> bool:
    return any(not math.isnan(group.metrics[metric].mean) for group in comparison.groups)


def _size_panel(
    kind: str,
    what: str,
    some: str,
    areas: Sequence[str],
    labels: Sequence[str],
    bars: Sequence[Bars],
) -> Panel:
    pitch = row_pitch(len(bars), labels, BAR)

    def draw(axis: Axes) -> None:
        draw_bars(axis, labels, bars, BAR, pitch)
        axis.set_xlabel(f"{kind} (IoU 0.50:0.95), %")

    texts = (
        f"{each.name} "
        + ", ".join(f"{a} {undefined_or(v)}" for a, v in zip(areas, each.values, strict=True))
        for each in bars
    )
    return Panel(
        f"sizes-{kind}",
        f"{what}{some}",
        f"{kind} by object size{some}",
        f"Bars of {what} by object size{some}: {'; '.join(texts)}.",
        len(labels) * pitch,
        draw,
    )


def _range(low: float, high: float) -> str:
    if low <= 0:
        return f"up to {_area(high)} px"
    if high >= COCO_AREAS["all"][1]:
        return f"from {_area(low)} px"
    return f"{_area(low)} to {_area(high)} px"


def _area(value: float) -> str:
    side = math.sqrt(value)
    return f"{side:.0f}²" if side.is_integer() else f"{value:g}"


def error_plot(comparison: Comparison, styles: Mapping[str, RunStyle]) -> Plot:
    """The types of errors: what correcting them would add to AP50, and how many there are."""
    panels = [
        _error_panel(comparison, styles, *each)
        for each in (
            (1, "what correcting them would add", "AP50, points", "{:.1f}"),
            (0, "how many there are", "detections; of missed, objects", "{:,.0f}"),
        )
    ]
    handles = bar_handles(comparison, styles, seeds=False)
    return Plot("Errors by type, at IoU 0.50", panels, handles)


def _error_panel(
    comparison: Comparison,
    styles: Mapping[str, RunStyle],
    which: Literal[0, 1],
    title: str,
    unit: str,
    number: str,
) -> Panel:
    labels = [f"{name}\n{ERROR_NOTES[name]}" for name in ERROR_TYPES]
    pitch = row_pitch(len(styles), labels, BAR)
    bars = []
    for name, style in styles.items():
        values = [comparison.group(name).errors[kind][which] for kind in ERROR_TYPES]
        bars.append(Bars(name, style, values, notes=[number.format(value) for value in values]))

    def draw(axis: Axes) -> None:
        draw_bars(axis, labels, bars, BAR, pitch)
        axis.set_xlabel(unit)

    return Panel(
        f"errors-{which}",
        title,
        f"Errors by type: {title}",
        f"Bars by type of error: {title}. The table 'Errors' has the same numbers.",
        len(labels) * pitch,
        draw,
    )
