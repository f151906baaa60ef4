"""Figures of a comparison for a README or a paper: told apart in grey as well as in colour."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mmkd.errors import InputError
from mmkd.evaluation.coco import COCO_AREAS, IOUS, RECALLS
from mmkd.evaluation.comparison import Comparison, GroupResult
from mmkd.evaluation.detection_errors import ERROR_TYPES
from mmkd.report.figures import COLORS, LABELS, MARKERS

__all__ = [
    "FIGURES",
    "draw_all",
    "draw_classes",
    "draw_cost",
    "draw_errors",
    "draw_precision_recall",
    "draw_sizes",
]

SHOWN_IOUS = (0.5, 0.75, 0.9)
# More classes than the first take two columns; of more than the second only both ends are shown.
COLUMN_CLASSES, SHOWN_CLASSES = 25, 120
ERROR_NOTES = {
    "classification": "wrong class",
    "localisation": "box too far off",
    "both": "wrong class and box",
    "duplicate": "object found before",
    "background": "nothing there",
    "missed": "object not found",
}

# In inches; at this resolution a figure fills the width of a README.
_WIDTH, _DOTS = 9.2, 100
_BAR, _THIN_BAR, _GAP, _LINE, _FRAME = 0.17, 0.11, 0.13, 0.15, 1.5
_LABEL_CHARACTERS, _LINE_CHARACTERS, _LEGEND_CHARACTERS = 28, 86, 108


@dataclass(frozen=True)
class _Style:
    """How a run is drawn: it differs from the others in more than the colour.

    Args:
        color: Of Okabe and Ito's palette.
        hatch: Of bars, in white.
        dash: Of lines.
        marker: Of points.
    """

    color: str
    hatch: str
    dash: Any
    marker: str


_BASELINE = _Style(COLORS["plain"], "///", (0, (5, 2)), MARKERS["plain"])
_TEACHER = _Style(COLORS["teacher"], "", (0, (1, 1.2)), MARKERS["teacher"])
# The palette's yellow is too light for a line on white, and is darker here. The lists differ in
# length, so that they do not begin anew together.
_COLORS = (COLORS["distilled"], "#CC79A7", "#E69F00", "#56B4E9", "#B8AD1C", COLORS["truth"])
_HATCHES = ("", "xxx", "\\\\\\", "---", "...", "|||", "++")
_DASHES = ("-", (0, (8, 2, 2, 2)), (0, (12, 3)), (0, (3, 1.5)), (0, (6, 1.5, 1, 1.5, 1, 1.5)))
_MARKERS = (MARKERS["distilled"], "D", "X", "v", "P", "*", "<", ">")


@dataclass(frozen=True)
class _Bars:
    """A group's bars.

    Args:
        style: Of the group.
        values: One a row; nan where there is none.
        seeds: The values of which they are the means, row by row; empty with one seed.
        notes: Printed beside the bars, row by row; empty for none.
        bold: Which notes are bold; empty for none.
    """

    style: _Style
    values: list[float]
    seeds: list[list[float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bold: list[bool] = field(default_factory=list)


def draw_precision_recall(comparison: Comparison, out: str | Path) -> Figure | None:
    """Draws precision against recall at IoU 0.50, 0.75 and 0.90.

    Lines are COCO's interpolated precision at 101 recalls: the mean over the classes that have
    objects and over the seeds, of all areas and the largest number of detections.

    Args:
        comparison: What to draw.
        out: Picture to write.

    Returns:
        The figure; None, and nothing is written, where no class has objects.
    """
    styles = _styles(comparison)
    curves = {name: comparison.group(name).mean_precision for name in styles}
    if all(np.isnan(curve).all() for curve in curves.values()):
        return None
    figure = _figure(3.9, "Precision by recall at three IoU thresholds, mean over classes")
    axes = figure.subplots(1, len(SHOWN_IOUS), sharey=True)
    for axis, iou in zip(axes, SHOWN_IOUS, strict=True):
        for index, (name, style) in enumerate(styles.items()):
            curve = curves[name][np.argmin(abs(IOUS - iou))]
            # Apart from each other where lines meet, and not along the end, where all are 0.
            marks = [i for i in range(3 * index % 15, len(curve), 15) if curve[i] > 0]
            axis.add_line(_line(style, 100 * RECALLS, curve, markersize=7, markevery=marks))
        axis.set(title=f"IoU {iou:.2f}", xlabel="recall, %", xlim=(0, 101), ylim=(0, 102))
        _tidy(axis)
    axes[0].set_ylabel("precision, %")
    _add_legend(figure, {_label(name): _line(style) for name, style in styles.items()})
    return _save(figure, out)


def draw_classes(comparison: Comparison, out: str | Path) -> Figure | None:
    """Draws average precision by class.

    Classes are in the order of what the first run gains over the baseline, which is printed beside
    that run's bars; without a baseline, in the order of the mean over the groups. Of more than 120
    classes the first and the last 60 are shown.

    Args:
        comparison: What to draw.
        out: Picture to write.

    Returns:
        The figure; None, and nothing is written, where no class has objects.
    """
    names, title = _ranked_classes(comparison)
    if not names:
        return None
    if len(names) > SHOWN_CLASSES:
        title += f"\nthe first and the last {SHOWN_CLASSES // 2} of {len(names)} classes"
        names = names[: SHOWN_CLASSES // 2] + names[-(SHOWN_CLASSES // 2) :]
    columns = 1 if len(names) <= COLUMN_CLASSES else 2
    size, thickness = math.ceil(len(names) / columns), _BAR if columns == 1 else _THIN_BAR
    labels = {name: _wrapped(name, _LABEL_CHARACTERS) for name in names}
    pitch = _pitch(comparison, labels.values(), thickness)
    figure = _figure(_FRAME + size * pitch, title)
    axes = figure.subplots(1, columns, sharex=True, squeeze=False)[0]
    for column, axis in enumerate(axes):
        shown = names[column * size : (column + 1) * size]
        bars = _class_bars(comparison, shown)
        _draw_bars(axis, [labels[name] for name in shown], bars, thickness, pitch)
        axis.set(ylim=(size * pitch, 0), xlabel="AP (IoU 0.50:0.95), %")
    _add_legend(figure, _bar_handles(comparison))
    return _save(figure, out)


def _compared(comparison: Comparison) -> GroupResult | None:
    """The group whose gains over the baseline are shown."""
    return next((group for group in _ordered(comparison) if group.class_differences), None)


def _ranked_classes(comparison: Comparison) -> tuple[list[str], str]:
    """The classes that have objects, and a title that says what their order is."""
    compared = _compared(comparison)
    if compared is None:
        groups = comparison.groups
        keys = {
            name: float(np.mean([group.classes[name].mean for group in groups]))
            for name in groups[0].classes
        }
        title = "AP by class"
    else:
        gains = compared.class_differences
        keys = {name: gain.value for name, gain in gains.items()}
        over = f"“{_label(compared.name)}” over “{_label(str(comparison.baseline))}”"
        title = f"AP by class, in the order of the gain of {over}"
        if any(not math.isnan(gain.low) for gain in gains.values()):
            title += "\nbold: the gain's 95% interval over images excludes 0"
    defined = [name for name, value in keys.items() if not math.isnan(value)]
    return sorted(defined, key=lambda name: -keys[name]), title


def _class_bars(comparison: Comparison, names: Sequence[str]) -> list[_Bars]:
    """With the gains, or without a baseline the values, as notes."""
    bars = _bars(comparison, "classes", names)
    compared = _compared(comparison)
    if compared is None:
        return _with_values(bars)
    gains = [compared.class_differences[name] for name in names]
    bars[compared.name] = replace(
        bars[compared.name],
        notes=[f"{gain.value:+.1f}" for gain in gains],
        bold=[gain.low > 0 or gain.high < 0 for gain in gains],
    )
    return list(bars.values())


def draw_sizes(comparison: Comparison, out: str | Path) -> Figure | None:
    """Draws average precision and average recall by the settings' ranges of the objects' area.

    Args:
        comparison: What to draw.
        out: Picture to write.

    Returns:
        The figure; None, and nothing is written, where there are no ranges or no objects in them.
    """
    areas = {name: ends for name, ends in comparison.settings.areas.items() if name != "all"}
    titles = {
        "AP": "average precision",
        "AR": f"average recall, {comparison.settings.max_detections[-1]} detections",
    }
    panels = {
        kind: _with_values(_bars(comparison, "metrics", [f"{kind}_{name}" for name in areas]))
        for kind in titles
    }
    if all(math.isnan(v) for panel in panels.values() for bars in panel for v in bars.values):
        return None
    labels = [
        f"{_wrapped(name, _LABEL_CHARACTERS)}\n{_range(*ends)}" for name, ends in areas.items()
    ]
    pitch = _pitch(comparison, labels, _BAR)
    figure = _figure(_FRAME + _LINE + len(areas) * pitch, "AP and AR by the objects' area")
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True)
    for axis, (kind, bars) in zip(axes, panels.items(), strict=True):
        _draw_bars(axis, labels, bars, _BAR, pitch)
        axis.set(title=titles[kind], xlabel=f"{kind} (IoU 0.50:0.95), %")
    _add_legend(figure, _bar_handles(comparison))
    return _save(figure, out)


def _range(low: float, high: float) -> str:
    if low <= 0:
        return f"up to {_area(high)} px"
    if high >= COCO_AREAS["all"][1]:
        return f"from {_area(low)} px"
    return f"{_area(low)} to {_area(high)} px"


def _area(value: float) -> str:
    side = math.sqrt(value)
    return f"{side:.0f}²" if side.is_integer() else f"{value:g}"


def draw_errors(comparison: Comparison, out: str | Path) -> Figure:
    """Draws the types of errors: what correcting them would add to AP50, and how many there are.

    Args:
        comparison: What to draw.
        out: Picture to write.

    Returns:
        The figure.
    """
    labels = [f"{name}\n{ERROR_NOTES[name]}" for name in ERROR_TYPES]
    pitch = _pitch(comparison, labels, _BAR)
    figure = _figure(_FRAME + _LINE + len(labels) * pitch, "Errors by type, at IoU 0.50")
    panels = (
        (1, "what correcting them would add", "AP50, points", "{:.1f}"),
        (0, "how many there are", "detections; of missed, objects", "{:,.0f}"),
    )
    axes = figure.subplots(1, len(panels), sharey=True)
    for axis, (which, title, unit, number) in zip(axes, panels, strict=True):
        bars = []
        for name, style in _styles(comparison).items():
            values = [comparison.group(name).errors[kind][which] for kind in ERROR_TYPES]
            bars.append(_Bars(style, values, notes=[number.format(value) for value in values]))
        _draw_bars(axis, labels, bars, _BAR, pitch)
        axis.set(title=title, xlabel=unit)
    _add_legend(figure, _bar_handles(comparison, seeds=False))
    return _save(figure, out)


def draw_cost(comparison: Comparison, out: str | Path) -> Figure | None:
    """Draws mAP against the number of parameters and against the time of a training step.

    Args:
        comparison: What to draw.
        out: Picture to write.

    Returns:
        The figure, without the panel for which no group has a value; None, and nothing is written,
        where that is both.
    """
    groups = [group for group in comparison.groups if not math.isnan(group.metrics["mAP"].mean)]
    panels = {
        "parameters, millions": {
            g.name: g.parameters / 1e6 for g in groups if g.parameters is not None
        },
        "time of a training step, ms": {
            g.name: 1e3 * g.step_seconds for g in groups if g.step_seconds is not None
        },
    }
    panels = {unit: costs for unit, costs in panels.items() if costs}
    if not panels:
        return None
    styles = {n: s for n, s in _styles(comparison).items() if any(n in c for c in panels.values())}
    figure = _figure(3.9, "mAP by cost: better is up and to the left")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (unit, costs) in zip(axes, panels.items(), strict=True):
        for name, cost in costs.items():
            score = comparison.group(name).metrics["mAP"]
            axis.add_line(_line(styles[name], [cost], [score.mean], linestyle="", markersize=10))
            if len(score.values) > 1:
                marks = _seed_marks([cost] * len(score.values), score.values)
                # Behind the mean, whose shape must be seen.
                marks.set_zorder(1.5)
                axis.add_line(marks)
        axis.autoscale_view()
        axis.set(xlabel=unit, xlim=(0, 1.1 * max(costs.values())))
        axis.margins(y=0.15)
        _tidy(axis)
    axes[0].set_ylabel("mAP (IoU 0.50:0.95), %")
    handles = {_label(n): _line(s, linestyle="", markersize=10) for n, s in styles.items()}
    _add_legend(figure, handles | _seed_handles(comparison, "one seed (large: mean)"))
    return _save(figure, out)


def _ordered(comparison: Comparison) -> list[GroupResult]:
    """Baseline first, teacher last."""
    order = ("baseline", "run", "teacher")
    return sorted(comparison.groups, key=lambda group: order.index(group.role))


def _styles(comparison: Comparison) -> dict[str, _Style]:
    """By the groups' names, in the order in which they are drawn."""
    styles, runs = {}, 0
    for group in _ordered(comparison):
        if group.role == "run":
            styles[group.name] = _Style(
                _COLORS[runs % len(_COLORS)],
                _HATCHES[runs % len(_HATCHES)],
                _DASHES[runs % len(_DASHES)],
                _MARKERS[runs % len(_MARKERS)],
            )
            runs += 1
        else:
            styles[group.name] = _BASELINE if group.role == "baseline" else _TEACHER
    return styles


def _label(name: str) -> str:
    # Not every label is that of a run.
    return LABELS[name] if name in MARKERS else name


def _bars(
    comparison: Comparison, part: Literal["metrics", "classes"], names: Sequence[str]
) -> dict[str, _Bars]:
    """By the groups' names."""
    drawn = {}
    for group, style in _styles(comparison).items():
        scores = [getattr(comparison.group(group), part)[name] for name in names]
        seeds = [score.values for score in scores if len(score.values) > 1]
        drawn[group] = _Bars(style, [score.mean for score in scores], seeds)
    return drawn


def _with_values(bars: Mapping[str, _Bars]) -> list[_Bars]:
    return [
        replace(each, notes=[f"{value:.1f}" for value in each.values]) for each in bars.values()
    ]


def _draw_bars(
    axis: Axes, labels: Sequence[str], bars: Sequence[_Bars], thickness: float, pitch: float
) -> None:
    """Draws rows of bars from the top, one bar a group.

    Args:
        axis: To draw on.
        labels: Of the rows.
        bars: Of the groups.
        thickness: Of a bar, in inches like the vertical axis.
        pitch: Of the rows.
    """
    middles = [(row + 0.5) * pitch for row in range(len(labels))]
    longest = 0.0
    for index, each in enumerate(bars):
        shift = (index - (len(bars) - 1) / 2) * thickness
        rows = [row for row, value in enumerate(each.values) if not math.isnan(value)]
        axis.barh(
            [middles[row] + shift for row in rows],
            [each.values[row] for row in rows],
            thickness,
            color=each.style.color,
            hatch=each.style.hatch,
            edgecolor="white",
        )
        for row in rows:
            seeds = each.seeds[row] if each.seeds else []
            if seeds:
                axis.add_line(_seed_marks(seeds, [middles[row] + shift] * len(seeds)))
            tip = max([each.values[row], *seeds])
            longest = max(longest, tip)
            if each.notes:
                weight = "bold" if each.bold and each.bold[row] else "normal"
                _print(axis, tip, middles[row] + shift, each.notes[row], weight)
    axis.set_yticks(middles, labels)
    axis.tick_params(axis="y", length=0)
    # Axes may share their limits. Notes take room beyond the tips.
    axis.set(ylim=(len(labels) * pitch, 0), xlim=(0, max(1.14 * longest, axis.get_xlim()[1])))
    _tidy(axis, "x")


def _print(axis: Axes, x: float, y: float, text: str, weight: str) -> None:
    axis.annotate(
        text, (x, y), (4, 0), textcoords="offset points", va="center", fontsize=8, weight=weight
    )


def _pitch(comparison: Comparison, labels: Iterable[str], thickness: float) -> float:
    """Of rows that hold a bar of each group, and their labels."""
    lines = max(label.count("\n") + 1 for label in labels)
    return max(len(comparison.groups) * thickness, lines * _LINE) + _GAP


def _bar_handles(comparison: Comparison, *, seeds: bool = True) -> dict[str, Artist]:
    handles: dict[str, Artist] = {
        _label(name): Patch(facecolor=style.color, hatch=style.hatch, edgecolor="white")
        for name, style in _styles(comparison).items()
    }
    return handles | _seed_handles(comparison, "one seed (bar: mean)") if seeds else handles


def _seed_handles(comparison: Comparison, label: str) -> dict[str, Artist]:
    pooled = any(len(group.evaluations) > 1 for group in comparison.groups)
    return {label: _seed_marks([], [])} if pooled else {}


def _seed_marks(x: Sequence[float], y: Sequence[float]) -> Line2D:
    """Seen on bars of any colour and beside them."""
    return Line2D(
        x,
        y,
        linestyle="",
        marker="o",
        markersize=3.5,
        markerfacecolor="white",
        markeredgecolor="black",
        markeredgewidth=0.8,
        zorder=3,
    )


def _line(
    style: _Style, x: Iterable[float] = (), y: Iterable[float] = (), **changes: Any
) -> Line2D:
    looks = dict(color=style.color, linestyle=style.dash, linewidth=1.8, marker=style.marker)
    return Line2D(list(x), list(y), **(looks | changes))


def _figure(height: float, title: str) -> Figure:
    """Higher by what the title takes beyond a line."""
    text = "\n".join(_wrapped(line, _LINE_CHARACTERS) for line in title.split("\n"))
    height += text.count("\n") * 1.3 * _LINE
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    figure.suptitle(text, fontsize=12)
    return figure


def _tidy(axis: Axes, grid: Literal["both", "x", "y"] = "both") -> None:
    axis.grid(axis=grid, alpha=0.3)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def _wrapped(text: str, width: int) -> str:
    """In lines, and without what matplotlib takes for mathematics."""
    return textwrap.fill(text, width).replace("$", r"\$")


def _add_legend(figure: Figure, handles: Mapping[str, Artist]) -> None:
    """Below the axes; the figure grows by what it takes beyond a line."""
    labels = [_wrapped(label, _LINE_CHARACTERS) for label in handles]
    # A handle takes the place of some characters.
    widths = [max(map(len, label.split("\n"))) + 8 for label in labels]
    columns = next(
        count
        for count in range(len(labels), 0, -1)
        if sum(map(max, np.array_split(widths, count))) <= _LEGEND_CHARACTERS or count == 1
    )
    legend = figure.legend(
        list(handles.values()),
        # Matplotlib leaves out what begins with an underscore.
        [" "] * len(labels),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        handlelength=3,
    )
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_text(label)
    lines = math.ceil(sum(label.count("\n") + 1 for label in labels) / columns)
    figure.set_figheight(figure.get_figheight() + (lines - 1) * 1.5 * _LINE)


def _save(figure: Figure, out: str | Path) -> Figure:
    # A tight box is larger than the figure where a name needs it.
    figure.savefig(out, dpi=_DOTS, bbox_inches="tight", pad_inches=0.1)
    return figure


FIGURES: dict[str, Callable[[Comparison, Path], Figure | None]] = {
    "precision_recall.png": draw_precision_recall,
    "classes.png": draw_classes,
    "sizes.png": draw_sizes,
    "errors.png": draw_errors,
    "cost.png": draw_cost,
}


def draw_all(comparison: Comparison, folder: str | Path) -> list[Path]:
    """Draws every figure for which the comparison has values.

    Args:
        comparison: What to draw.
        folder: Made where it is missing. Files called as :data:`FIGURES` in it are replaced.

    Returns:
        The files that were written.

    Raises:
        InputError: ``folder`` is a file.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: expected a folder for the figures, found a file")
    folder.mkdir(parents=True, exist_ok=True)
    files = {folder / name: draw for name, draw in FIGURES.items()}
    return [file for file, draw in files.items() if draw(comparison, file) is not None]
