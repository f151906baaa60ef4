"""What every figure is made of: axes with something on them, side by side or each for itself."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from mmkd.evaluation.comparison import Comparison
from mmkd.report.style import GRID, GROUND, INK, RunStyle

__all__ = [
    "LINE",
    "PLAIN_HEIGHT",
    "Panel",
    "Plot",
    "line",
    "seed_handles",
    "seed_marks",
    "tell",
    "tidy",
    "wrapped",
    "writable",
]

# In inches: a line of text, and the axes of a panel whose height does not depend on its rows.
LINE, PLAIN_HEIGHT = 0.15, 2.4
_NO_LETTERS = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Panel:
    """Axes and what is drawn on them.

    Args:
        key: Unique in a page.
        title: Beside other panels of the plot; empty for none.
        caption: Where the panel stands alone.
        description: What it shows, in words, for whoever does not see it.
        height: Of the axes, in inches.
        draw: Draws on the axes.
    """

    key: str
    title: str
    caption: str
    description: str
    height: float
    draw: Callable[[Axes], None]


@dataclass(frozen=True)
class Plot:
    """Panels that belong together.

    Args:
        title: Of the whole.
        panels: From left to right.
        legend: What stands for a label; the page has a legend of its own.
        shared: Axes that are the same in all panels.
    """

    title: str
    panels: list[Panel]
    legend: Mapping[str, Artist]
    shared: Sequence[Literal["x", "y"]] = field(default=("y",))


def line(style: RunStyle, x: Iterable[float] = (), y: Iterable[float] = (), **looks: Any) -> Line2D:
    """A run's line or points."""
    own = dict(
        color=style.color,
        linestyle=(0, style.dash) if style.dash else "-",
        linewidth=1.8,
        marker=style.marker,
    )
    return Line2D(list(x), list(y), **(own | looks))


def seed_marks(x: Sequence[float], y: Sequence[float]) -> Line2D:
    """Points of single seeds: seen on bars of any colour and beside them."""
    return Line2D(
        x,
        y,
        linestyle="",
        marker="o",
        markersize=3.5,
        markerfacecolor=GROUND,
        markeredgecolor=INK,
        markeredgewidth=0.8,
        zorder=3,
    )


def seed_handles(comparison: Comparison, label: str) -> dict[str, Artist]:
    """For the legend; none where no run has several seeds."""
    pooled = any(len(group.evaluations) > 1 for group in comparison.groups)
    return {label: seed_marks([], [])} if pooled else {}


def tell(artist: Artist, style: RunStyle, text: str = "") -> Artist:
    """Marks as a run's own what the page can hide with it, and say of it to a pointer."""
    artist.set_gid(f"run:{style.index}:{writable(text)}")
    return artist


def tidy(axis: Axes, grid: Literal["both", "x", "y"] = "both") -> None:
    """A grid behind what is drawn, and no frame."""
    axis.grid(axis=grid, color=GRID)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def wrapped(text: str, width: int) -> str:
    """In lines, and without what matplotlib takes for mathematics or cannot write."""
    return textwrap.fill(writable(text), width).replace("$", r"\$")


def writable(text: str) -> str:
    """Without what neither fonts nor SVG take."""
    return _NO_LETTERS.sub("\ufffd", text)
