"""Figures of what was recorded inside distillations; beside each, the values that it shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mmkd.dynamics_file import DynamicsRow
from mmkd.report.figures.canvas import LOOKS
from mmkd.report.figures.grid import across, grid, save_figure
from mmkd.report.figures.panels import line, tidy, wrapped
from mmkd.report.style import INK, RunStyle, run_styles

__all__ = ["SINGULAR", "Recordings", "draw_dynamics"]

# By run, what each of its seeds recorded.
Recordings = Mapping[str, Sequence[Sequence[DynamicsRow]]]

# What an axis is called, by its measure; others by their own names.
_LABELS = {
    "cka": "linear CKA with the teacher",
    "explained_variance": "explained share of the teacher's variance",
    "self_correlation": "correlation among the student's channels",
    "cross_correlation": "correlation with the teacher's channels",
    "effective_rank": "effective rank of the projector",
    "condition_number": "condition number of the projector",
    "rest": "distance from rest",
    "passes": "correlation of projected and original feature",
    "gradient_share": "share of the gradient",
    "gradient_cosine": "cosine to the task's gradient",
    "classifier_distance": "distance of the classifiers",
    "equivariance": "departure from equivariance to translation",
    "agreement": "share of predictions as the teacher's",
    "between_classes": "cosine between classes",
    "teacher_between_classes": "the teacher's cosine between classes",
}
# Quantiles of a projector's singular values: one figure in the place of five.
_BANDS = (("singular_min", "singular_max", 0.15), ("singular_25", "singular_75", 0.3))
_MEDIAN = "singular_50"
# How their measures begin.
SINGULAR = "singular_"
# What goes from 0 to 1, or from -1 to 1: so one colour scale serves.
_BOUNDED = (
    "cka",
    "explained_variance",
    "gradient_share",
    "passes",
    "agreement",
    "cosine_inside",
    "cosine_outside",
)
_LOGARITHMIC = ("condition_number", "equivariance")
# Other images than a trainer's own are dotted.
_DASHES: dict[str, Any] = {"train": "-", "val": (0, (4, 2))}


def draw_dynamics(runs: Recordings, folder: Path) -> list[Path]:
    """A figure a measure, with a panel a term and a line a run; the singular values of projectors
    as bands; and heat maps of terms by steps. Each as PNG and SVG, and its values as CSV.

    Lines are means over the seeds, in points the single ones.

    Args:
        runs: In the order of their colours.
        folder: Made where it is missing; files of the same names are replaced.

    Returns:
        The pictures, without their SVG and CSV.
    """
    styles = run_styles(dict.fromkeys(runs, "run"))
    measures = _in_order(row.measure for seeds in runs.values() for seed in seeds for row in seed)
    files = []
    with matplotlib.rc_context(LOOKS):
        for measure in measures:
            if not measure.startswith(SINGULAR):
                files.append(_measure_figure(measure, runs, styles, folder))
        if _MEDIAN in measures:
            files.append(_band_figure(runs, styles, folder))
        for measure in measures:
            if measure in _BOUNDED and (file := _heat_figure(measure, runs, folder)) is not None:
                files.append(file)
    return files


def _label(measure: str) -> str:
    return _LABELS.get(measure, measure.replace("_", " "))


def _in_order(names: Iterable[str]) -> list[str]:
    """Each once, as they first come."""
    return list(dict.fromkeys(names))


def _of(seeds: Sequence[Sequence[DynamicsRow]], measure: str) -> Iterator[tuple[int, DynamicsRow]]:
    """The rows of a measure, with the seed's number."""
    for index, seed in enumerate(seeds):
        yield from ((index, row) for row in seed if row.measure == measure)


def _terms(runs: Recordings, measure: str) -> list[str]:
    return _in_order(row.term for seeds in runs.values() for _, row in _of(seeds, measure))


def _means(rows: Iterable[DynamicsRow]) -> tuple[list[int], list[float]]:
    """Over the seeds, by step."""
    by_step: dict[int, list[float]] = {}
    for row in rows:
        by_step.setdefault(row.step, []).append(row.value)
    steps = sorted(by_step)
    return steps, [fmean(by_step[step]) for step in steps]


def _measure_figure(
    measure: str, runs: Recordings, styles: Mapping[str, RunStyle], folder: Path
) -> Path:
    terms = _terms(runs, measure)
    label = _label(measure)
    figure, axes = grid(len(terms), label[0].upper() + label[1:])
    splits = _in_order(row.images for seeds in runs.values() for _, row in _of(seeds, measure))
    for axis, term in zip(axes, terms, strict=True):
        for run, seeds in runs.items():
            for split in splits:
                own = [
                    row for _, row in _of(seeds, measure) if (row.term, row.images) == (term, split)
                ]
                _draw_line(axis, own, styles[run], split, len(seeds))
        if measure in _LOGARITHMIC:
            axis.set_yscale("log")
        _finish(axis, term)
    axes[0].set_ylabel(label if len(label) < 24 else "")
    handles = {run: line(style, marker=None, linestyle="-") for run, style in styles.items()} | {
        f"{split} images": Line2D([], [], color=INK, linestyle=_DASHES.get(split, ":"))
        for split in (splits if len(splits) > 1 else ())
    }
    _legend(figure, handles)
    rows = (
        (run, seed, *row[:3], row.value)
        for run, seeds in runs.items()
        for seed, row in _of(seeds, measure)
    )
    head = ("run", "seed", "step", "images", "term", measure)
    return save_figure(figure, folder, measure, head, rows)


def _draw_line(
    axis: Axes, rows: Sequence[DynamicsRow], style: RunStyle, split: str, seeds: int
) -> None:
    if not rows:
        return
    steps, means = _means(rows)
    # A single point is seen by its mark alone.
    marker = style.marker if len(steps) == 1 else None
    dash = _DASHES.get(split, ":")
    axis.add_line(line(style, steps, means, linestyle=dash, marker=marker, markersize=5))
    if seeds > 1:
        places, values = zip(*((row.step, row.value) for row in rows), strict=True)
        axis.plot(places, values, ".", color=style.color, markersize=3, alpha=0.5)


def _finish(axis: Axes, title: str) -> None:
    axis.set_title(wrapped(title, 40), fontsize=10)
    axis.set_xlabel("step")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.autoscale_view()
    tidy(axis)


def _legend(figure: Figure, handles: Mapping[str, Any]) -> None:
    figure.legend(
        list(handles.values()),
        [wrapped(name, 60) for name in handles],
        loc="outside lower center",
        ncols=min(len(handles), 4),
        frameon=False,
    )


def _band_figure(runs: Recordings, styles: Mapping[str, RunStyle], folder: Path) -> Path:
    """A panel a term and run: of two at one place neither band could be seen."""
    panels = [
        (term, run)
        for term in _terms(runs, _MEDIAN)
        for run, seeds in runs.items()
        if any(row.term == term for _, row in _of(seeds, _MEDIAN))
    ]
    title = "Singular values of the projectors: median, middle half, and all"
    # A row a term, where the runs fit beside each other.
    figure, axes = grid(len(panels), title, across(len(runs)))
    table = []
    for axis, (term, run) in zip(axes, panels, strict=True):

        def of(measure: str, term: str = term, run: str = run) -> tuple[list[int], list[float]]:
            found = (row for _, row in _of(runs[run], measure) if row.term == term)
            return _means(found)

        for low, high, opacity in _BANDS:
            steps, lowest = of(low)
            axis.fill_between(
                steps, lowest, of(high)[1], color=styles[run].color, alpha=opacity, linewidth=0
            )
        steps, medians = of(_MEDIAN)
        axis.add_line(line(styles[run], steps, medians, linestyle="-", marker=None))
        _finish(axis, f"{term}, {run}")
        quantiles = [of(name)[1] for name in ("singular_min", "singular_25", _MEDIAN)]
        quantiles += [of(name)[1] for name in ("singular_75", "singular_max")]
        table += [(run, term, *values) for values in zip(steps, *quantiles, strict=True)]
    head = ("run", "term", "step", "min", "25%", "50%", "75%", "max")
    return save_figure(figure, folder, "singular_values", head, table)


def _heat_figure(measure: str, runs: Recordings, folder: Path) -> Path | None:
    """Terms by steps; None where a line says as much."""
    terms = _terms(runs, measure)
    steps = sorted({row.step for seeds in runs.values() for _, row in _of(seeds, measure)})
    if len(terms) < 2 or len(steps) < 2:
        return None
    shown = [run for run, seeds in runs.items() if any(True for _ in _of(seeds, measure))]
    split = "val" if _has(runs, measure, "val") else "train"
    label = _label(measure)
    title = f"{label[0].upper()}{label[1:]}, {split} images"
    figure, axes = grid(len(shown), title)
    table = []
    least = -1 if measure.startswith("cosine_") else 0
    for axis, run in zip(axes, shown, strict=True):
        matrix = np.full((len(terms), len(steps)), np.nan)
        for index, term in enumerate(terms):
            own = (
                row for _, row in _of(runs[run], measure) if (row.term, row.images) == (term, split)
            )
            for step, value in zip(*_means(own), strict=True):
                matrix[index, steps.index(step)] = value
                table.append((run, term, step, value))
        image = axis.imshow(matrix, aspect="auto", vmin=least, vmax=1, cmap="cividis")
        axis.set_title(wrapped(run, 40), fontsize=10)
        places = np.unique(np.linspace(0, len(steps) - 1, min(6, len(steps))).round().astype(int))
        axis.set_xticks(places, [str(steps[place]) for place in places])
        axis.set_yticks(range(len(terms)), [wrapped(term, 24) for term in terms])
        axis.set_xlabel("step")
    figure.colorbar(image, ax=axes, shrink=0.8)
    head = ("run", "term", "step", measure)
    return save_figure(figure, folder, f"{measure}_map", head, table)


def _has(runs: Recordings, measure: str, split: str) -> bool:
    return any(row.images == split for seeds in runs.values() for _, row in _of(seeds, measure))
