"""Plots as pictures for a README or a paper, and panels as SVG that takes on a page's theme."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from mmkd.report.figures.panels import LINE, Panel, Plot, wrapped, writable
from mmkd.report.style import GRID, GROUND, INK, RunStyle

__all__ = ["inline_svg", "write_picture"]

# In inches; at this resolution a picture fills the width of a README.
_WIDTH, _DOTS, _FRAME = 9.2, 100, 1.5
# Of a panel on a page: letters keep their size on a phone, and nearly so in two columns.
_PANEL_WIDTH, _PANEL_FRAME = 4.6, 0.55
_LINE_CHARACTERS, _LEGEND_CHARACTERS = 86, 108
_LOOKS: dict[Any, Any] = {
    **{f"{part}.color": INK for part in ("text", "xtick", "ytick")},
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "grid.color": GRID,
    "hatch.color": GROUND,
    # Letters stay letters, and the same input gives the same bytes.
    "svg.fonttype": "none",
    "svg.hashsalt": "mmkd",
}
_SVG, _LINK = "http://www.w3.org/2000/svg", "{http://www.w3.org/1999/xlink}href"
_REFERENCE = re.compile(r"#([\w-]+)")
_PAINT, _REFERRING = ("fill", "stroke"), ("clip-path", "href", "style")
_PLACING = ("d", "transform", "viewBox", "x", "y")
# The page's own is taken.
_FAMILY = re.compile(r"(?<=px) '.*?(?=;|$)|font-family: .*?(; |$)")


def write_picture(plot: Plot, out: str | Path) -> Figure:
    """Draws the panels of a plot side by side, with title and legend.

    Args:
        plot: What to draw.
        out: Picture to write, 920 pixels wide or a little more.

    Returns:
        The figure.
    """
    with matplotlib.rc_context(_LOOKS):
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
        figure.savefig(out, dpi=_DOTS, bbox_inches="tight", pad_inches=0.1)
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


def inline_svg(panel: Panel, styles: Iterable[RunStyle]) -> str:
    """Draws a panel as an SVG element for a page of HTML.

    Its colours are the page's variables ``--ink``, ``--card``, ``--line`` and ``--run-<index>``;
    what :func:`mmkd.report.figures.panels.tell` has marked is a group with ``data-run`` and a
    title. The same panel gives the same text.

    Args:
        panel: What to draw.
        styles: Of the page's runs.
    """
    variables = {INK: "var(--ink)", GROUND: "var(--card)", GRID: "var(--line)"}
    variables |= {style.color.lower(): f"var(--run-{style.index})" for style in styles}
    root = ElementTree.fromstring(_svg(panel))
    used = {
        name
        for element in root.iter()
        for value in element.attrib.values()
        for name in _REFERENCE.findall(value)
    }
    for element in list(root.iter()):
        # Its style sheet and description would be those of the whole page.
        for child in [each for each in element if each.tag.endswith(("}style", "}metadata"))]:
            element.remove(child)
        _adapt(element, panel.key, used, variables)
    root.attrib = {
        "class": "figure",
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-label": writable(panel.description),
    }
    ElementTree.register_namespace("", _SVG)
    return ElementTree.tostring(root, encoding="unicode")


def _svg(panel: Panel) -> str:
    stream = io.StringIO()
    with matplotlib.rc_context(_LOOKS), warnings.catch_warnings():
        # The browser has letters that matplotlib's font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        size = (_PANEL_WIDTH, _PANEL_FRAME + panel.height)
        figure = Figure(figsize=size, layout="constrained")
        panel.draw(figure.subplots())
        figure.savefig(
            stream,
            format="svg",
            metadata={"Date": None},
            transparent=True,
            bbox_inches="tight",
            pad_inches=0.04,
        )
    return stream.getvalue()


def _adapt(
    element: ElementTree.Element, key: str, used: set[str], variables: Mapping[str, str]
) -> None:
    """Names that are unique in the page, its colours and its letters."""
    given = element.attrib.pop("id", "")
    if given.startswith("run:"):
        _, index, text = given.split(":", 2)
        element.set("data-run", index)
        if text:
            title = ElementTree.Element(f"{{{_SVG}}}title")
            title.text = text
            element.insert(0, title)
    elif given in used:
        element.set("id", f"{key}-{given}")
    if _LINK in element.attrib:
        element.set("href", element.attrib.pop(_LINK))
    # Of patterns; only a style may hold variables.
    colors = [f"{name}: {element.attrib.pop(name)}" for name in _PAINT if name in element.attrib]
    style = "; ".join([*colors, *filter(None, [element.attrib.pop("style", "")])])
    if style:
        style = re.sub("#[0-9a-f]{6}", lambda found: variables.get(found[0], found[0]), style)
        element.set("style", _FAMILY.sub("", style))
    for name, value in element.attrib.items():
        if name in _REFERRING:
            element.set(name, value.replace("#", f"#{key}-"))
        elif name in _PLACING:
            element.set(name, re.sub(r"\d+\.\d{3,}", _short, value))


def _short(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}"
