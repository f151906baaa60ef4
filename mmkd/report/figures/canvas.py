"""Plots as pictures for a README or a paper."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from mmkd.output_files import written_whole
from mmkd.report.figures.panels import LINE, Plot, wrapped
from mmkd.report.style import GROUND, INK

__all__ = ["LOOKS", "write_picture"]

# Of all figures, whatever they are drawn into.
LOOKS: dict[Any, Any] = {
    **{f"{part}.color": INK for part in ("text", "xtick", "ytick")},
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "hatch.color": GROUND,
}
# In inches; at this resolution a picture fills the width of a README.
_WIDTH, _DOTS, _FRAME = 9.2, 100, 1.5
_LINE_CHARACTERS, _LEGEND_CHARACTERS = 86, 108


def write_picture(plot: Plot, out: str | Path) -> Figure:
    """Draws the panels of a plot side by side, with title and legend.

    Args:
        plot: What to draw.
        out: Picture to write, 920 pixels wide or a little more.

    Returns:
        The figure.
    """
    with matplotlib.rc_context(LOOKS):
        titled = any(panel.title for panel in plot.panels)
        height = _FRAME + LINE * titled + max(panel.height for panel in plot.panels)
        figure = _figure(height, plot.title)
        x, y = ("x" in plot.shared, "y" in plot.shared)
        axes = figure.subplots(1, len(plot.panels), sharex=x, sharey=y, squeeze=False)[0]
        for axis, panel in zip(axes, plot.panels, strict=True):
            panel.draw(axis)
            axis.set_title(panel.title)
            if y:
                axis.label_outer()
        _add_legend(figure, plot.legend)
        # A tight box is larger than the figure where a name needs it.
        with written_whole(Path(out)) as unfinished:
            figure.savefig(unfinished, dpi=_DOTS, bbox_inches="tight", pad_inches=0.1)
    return figure


def _figure(height: float, title: str) -> Figure:
    """Higher by what the title takes beyond a line."""
    text = "\n".join(wrapped(line, _LINE_CHARACTERS) for line in title.split("\n"))
    height += text.count("\n") * 1.3 * LINE
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    figure.suptitle(text, fontsize=12)
    return figure


def _add_legend(figure: Figure, handles: Mapping[str, Artist]) -> None:
    """Below the axes; the figure grows by what it takes beyond a line."""
    if not handles:
        return
    labels = [wrapped(label, _LINE_CHARACTERS) for label in handles]
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
    figure.set_figheight(figure.get_figheight() + (lines - 1) * 1.5 * LINE)
