"""Figures of equal panels, written with the values that they show."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmkd.output_files import write_text, written_whole
from mmkd.report.figures.panels import wrapped

__all__ = ["across", "grid", "save_figure"]

_COLUMNS = 3
_WIDTH, _HEIGHT, _DOTS = 3.6, 2.6, 100


def across(count: int) -> int:
    """Panels in a row, where so many belong together."""
    if count == 4:
        return 2
    return count if 1 < count <= _COLUMNS else _COLUMNS


def grid(
    count: int, title: str, columns: int = _COLUMNS, *, shared: bool = True
) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels.

    Args:
        count: Of the panels.
        title: Above all.
        columns: At most.
        shared: Whether all have the same axes.
    """
    columns = min(count, columns)
    rows = math.ceil(count / columns)
    # A title and a legend want some width.
    figure = Figure(figsize=(max(_WIDTH * columns, 5), _HEIGHT * rows + 0.9), layout="constrained")
    figure.suptitle(wrapped(title, 30 * max(columns, 2)))
    axes = list(figure.subplots(rows, columns, squeeze=False, sharex=shared, sharey=shared).flat)
    for index, axis in enumerate(axes[count:], start=count):
        axis.set_visible(False)
        axes[index - columns].tick_params(labelbottom=True)
    return figure, axes[:count]


def save_figure(
    figure: Figure, folder: Path, name: str, head: Sequence[str], rows: Iterable[Sequence[Any]]
) -> Path:
    """Writes PNG, SVG and CSV of one name.

    Args:
        figure: To write.
        folder: Where.
        name: Without an ending.
        head: Of the columns.
        rows: What the figure shows.

    Returns:
        The PNG.
    """
    for ending in ("png", "svg"):
        # Without a date, so that the same values make the same file.
        metadata = dict(Date=None) if ending == "svg" else None
        with (
            matplotlib.rc_context({"svg.hashsalt": name}),
            written_whole(folder / f"{name}.{ending}") as unfinished,
        ):
            figure.savefig(unfinished, dpi=_DOTS, format=ending, metadata=metadata)
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([head, *rows])
    write_text(folder / f"{name}.csv", stream.getvalue())
    return folder / f"{name}.png"
