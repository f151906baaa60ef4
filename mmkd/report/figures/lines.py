"""Lines and points: precision by recall and by IoU, differences to the baseline, mAP by cost."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from numpy.typing import NDArray

from mmkd.evaluation.coco import IOUS, RECALLS
from mmkd.evaluation.comparison import Comparison, Score
from mmkd.evaluation.intervals import Estimate
from mmkd.report.figures.panels import (
    PLAIN_HEIGHT,
    Panel,
    Plot,
    line,
    seed_handles,
    seed_marks,
    tell,
    tidy,
)
from mmkd.report.numbers import estimate, span, undefined_or
from mmkd.report.style import INK, RunStyle, run_label

__all__ = ["cost_plot", "difference_plot", "iou_plot", "precision_recall_plot"]

SHOWN_IOUS = (0.5, 0.75, 0.9)
# Inches of a metric's difference in each run.
_INTERVAL = 0.15


def precision_recall_plot(comparison: Comparison, styles: Mapping[str, RunStyle]) -> Plot | None:
    """Precision against recall at IoU 0.50, 0.75 and 0.90.

    Lines are COCO's interpolated precision at 101 recalls: the mean over the classes that have
    objects and over the seeds, of all areas and the largest number of detections.

    Returns:
        None where no class has objects.
    """
    curves = {name: comparison.group(name).mean_precision for name in styles}
    if all(np.isnan(curve).all() for curve in curves.values()):
        return None
    panels = []
    for iou in SHOWN_IOUS:
        row = int(np.argmin(abs(IOUS - iou)))
        at_iou = {name: curve[row] for name, curve in curves.items()}
        panels.append(_precision_panel(iou, at_iou, styles))
    title = "Precision by recall at three IoU thresholds, mean over classes"
    return Plot(title, panels, _handles(styles))


def _precision_panel(
    iou: float, curves: Mapping[str, NDArray[np.float64]], styles: Mapping[str, RunStyle]
) -> Panel:
    areas = {name: f"{name} {undefined_or(curve.mean())}" for name, curve in curves.items()}

    def draw(axis: Axes) -> None:
        for index, (name, curve) in enumerate(curves.items()):
            # Apart from each other where lines meet, and not along the end, where all are 0.
            marks = [i for i in range(3 * index % 15, len(curve), 15) if curve[i] > 0]
            drawn = line(styles[name], 100 * RECALLS, curve, markersize=7, markevery=marks)
            axis.add_line(drawn)
            tell(drawn, styles[name], f"{areas[name]} AP at IoU {iou:.2f}")
        axis.set(xlabel="recall, %", ylabel="precision, %", xlim=(0, 101), ylim=(0, 102))
        tidy(axis)

    return Panel(
        f"precision-{round(100 * iou)}",
        f"IoU {iou:.2f}",
        f"Precision by recall, IoU {iou:.2f}",
        f"Lines, mean over classes; the areas below them: {'; '.join(areas.values())}.",
        PLAIN_HEIGHT,
        draw,
    )


def iou_plot(comparison: Comparison, styles: Mapping[str, RunStyle]) -> Plot | None:
    """Average precision by the IoU from which a box counts as found.

    Returns:
        None where no class has objects.
    """
    curves = {name: comparison.group(name).mean_precision.mean(axis=1) for name in styles}
    if all(np.isnan(curve).all() for curve in curves.values()):
        return None
    texts = {
        name: f"{name} from {undefined_or(curve[0])} to {undefined_or(curve[-1])}"
        for name, curve in curves.items()
    }

    def draw(axis: Axes) -> None:
        for name, curve in curves.items():
            drawn = line(styles[name], IOUS, curve, markersize=6)
            axis.add_line(drawn)
            values = ", ".join(f"{v:.1f} at {iou:.2f}" for iou, v in zip(IOUS, curve, strict=True))
            tell(drawn, styles[name], f"{name}: {values}")
        axis.autoscale_view()
        axis.set(xlabel="IoU that counts as found", ylabel="AP, %", ylim=(0, None))
        tidy(axis)

    title = "Average precision by IoU"
    about = f"Lines from IoU 0.50 to 0.95: {'; '.join(texts.values())}."
    panel = Panel("ap-by-iou", "", title, about, PLAIN_HEIGHT, draw)
    return Plot(title, [panel], _handles(styles))


def difference_plot(comparison: Comparison, styles: Mapping[str, RunStyle]) -> Plot | None:
    """How far each run is from the baseline in every metric.

    Returns:
        None where nothing is compared or nothing has a value.
    """
    found = {n: g.differences for n in styles if (g := comparison.group(n)).differences}
    names = [
        name
        for name in comparison.groups[0].metrics
        if any(not math.isnan(each[name].value) for each in found.values())
    ]
    if not names:
        return None
    pitch = _INTERVAL * (len(found) + 0.7)

    def draw(axis: Axes) -> None:
        axis.axvline(0, color=INK, linewidth=0.8)
        middles = [(row + 0.5) * pitch for row in range(len(names))]
        for index, (run, differences) in enumerate(found.items()):
            shift = (index - (len(found) - 1) / 2) * _INTERVAL
            for name, middle in zip(names, middles, strict=True):
                _draw_interval(axis, run, styles[run], name, differences[name], middle + shift)
        axis.autoscale_view()
        axis.set(ylim=(len(names) * pitch, 0), xlabel="points")
        axis.set_yticks(middles, names)
        axis.tick_params(axis="y", length=0)
        tidy(axis, "x")

    title = f"Difference to {comparison.baseline}"
    if comparison.resamples:
        title += f", with 95% intervals over {comparison.intervals_over}"
    about = f"Points with intervals of every metric's difference to {comparison.baseline}. "
    about += "The table 'Scores' has the same numbers."
    panel = Panel("differences", "", title, about, len(names) * pitch, draw)
    return Plot(title, [panel], _handles({name: styles[name] for name in found}))


def _draw_interval(
    axis: Axes, run: str, style: RunStyle, metric: str, found: Estimate, y: float
) -> None:
    if math.isnan(found.value):
        return
    ends = f" ({span(found)})" if found.has_interval else ""
    text = f"{run}, {metric}: {estimate(found)}{ends}"
    if found.has_interval:
        whisker = line(style, [found.low, found.high], [y, y], linestyle="-", marker="|")
        axis.add_line(whisker)
        tell(whisker, style, text)
    point = line(style, [found.value], [y], linestyle="", markersize=6)
    axis.add_line(point)
    tell(point, style, text)


def cost_plot(comparison: Comparison, styles: Mapping[str, RunStyle]) -> Plot | None:
    """mAP against the number of parameters and against the time of a training step.

    Returns:
        None where no run has a value; without the panel for which none has.
    """
    groups = {name: comparison.group(name) for name in styles}
    scores = {n: s for n, g in groups.items() if not math.isnan((s := g.metrics["mAP"]).mean)}
    sizes = {n: p / 1e6 for n in scores if (p := groups[n].parameters) is not None}
    times = {n: 1e3 * t for n in scores if (t := groups[n].step_seconds) is not None}
    panels = [
        _cost_panel(key, caption, unit, costs, scores, styles)
        for key, caption, unit, costs in (
            ("parameters", "mAP against parameters", "parameters, millions", sizes),
            ("step-time", "mAP against training time", "time of a training step, ms", times),
        )
        if costs
    ]
    if not panels:
        return None
    looks = {name: style for name, style in styles.items() if name in sizes or name in times}
    handles: dict[str, Artist] = {
        run_label(n): line(s, linestyle="", markersize=10) for n, s in looks.items()
    }
    handles |= seed_handles(comparison, "one seed (large: mean)")
    return Plot("mAP by cost: better is up and to the left", panels, handles)


def _cost_panel(
    key: str,
    caption: str,
    unit: str,
    costs: Mapping[str, float],
    scores: Mapping[str, Score],
    styles: Mapping[str, RunStyle],
) -> Panel:
    texts = {
        name: f"{name} {undefined_or(scores[name].mean)} mAP, {unit}: {undefined_or(cost)}"
        for name, cost in costs.items()
    }

    def draw(axis: Axes) -> None:
        for name, cost in costs.items():
            score, style = scores[name], styles[name]
            point = line(style, [cost], [score.mean], linestyle="", markersize=10)
            axis.add_line(point)
            tell(point, style, texts[name])
            if len(score.values) > 1:
                marks = seed_marks([cost] * len(score.values), score.values)
                # Behind the mean, whose shape must be seen.
                marks.set_zorder(1.5)
                axis.add_line(marks)
                tell(marks, style, texts[name])
        axis.autoscale_view()
        axis.set(xlabel=unit, ylabel="mAP (IoU 0.50:0.95), %", xlim=(0, 1.1 * max(costs.values())))
        axis.margins(y=0.15)
        tidy(axis)

    return Panel(key, "", caption, f"Points: {'; '.join(texts.values())}.", PLAIN_HEIGHT, draw)


def _handles(styles: Mapping[str, RunStyle]) -> dict[str, Artist]:
    return {run_label(name): line(style) for name, style in styles.items()}
