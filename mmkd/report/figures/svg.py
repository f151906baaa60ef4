"""Panels as SVG in a page of HTML, with the page's colours and letters."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

from mmkd.report.figures.canvas import LOOKS
from mmkd.report.figures.panels import Panel, writable
from mmkd.report.style import GRID, GROUND, INK, RunStyle

__all__ = ["inline_svgs"]

# In inches: letters keep their size on a phone, and nearly so in several columns.
_WIDTH, _FRAME = 4.6, 0.55
# Letters stay letters, and the same input gives the same bytes.
_LOOKS: dict[Any, Any] = LOOKS | {"svg.fonttype": "none", "svg.hashsalt": "mmkd"}
_SVG, _LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
_REFERENCE = re.compile(r"(?<=#)[\w-]+")
_REFERRING, _PLACING = ("clip-path", "href", "style"), ("d", "transform", "viewBox", "x", "y")
# As newer and as older versions of matplotlib write it.
_FAMILY, _FONT = (
    re.compile(r"font-family: .*?(?:; |$)"),
    re.compile(r"font: (?:(\w+) )?(\S+px)[^;]*"),
)


def inline_svgs(panels: Sequence[Panel], styles: Iterable[RunStyle]) -> list[str]:
    """Draws the panels of a page as SVG elements.

    Their colours are the page's variables ``--ink``, ``--card``, ``--line`` and ``--run-<index>``;
    what :func:`mmkd.report.figures.panels.tell` has marked is a group with ``data-run`` and a
    title. Hatches are defined in the first figure that has them. The same panels give the same
    text.

    Args:
        panels: What to draw.
        styles: Of the page's runs.
    """
    variables = {INK: "var(--ink)", GROUND: "var(--card)", GRID: "var(--line)"}
    variables |= {style.color.lower(): f"var(--run-{style.index})" for style in styles}
    ElementTree.register_namespace("", _SVG[1:-1])
    hatches: set[str] = set()
    return [_inline(panel, variables, hatches) for panel in panels]


def _inline(panel: Panel, variables: Mapping[str, str], hatches: set[str]) -> str:
    root = ElementTree.fromstring(_draw(panel))
    own = {str(pattern.get("id")) for pattern in root.iter(f"{_SVG}pattern")}
    names = {
        name: name if name in own else f"{panel.key}-{name}"
        for element in root.iter()
        for value in element.attrib.values()
        for name in _REFERENCE.findall(value)
    }
    for element in reversed(list(root.iter())):
        for child in list(element):
            if _is_left_out(child, hatches):
                element.remove(child)
        _adapt(element, names, variables)
    hatches |= own
    root.attrib = {
        "class": "figure",
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-label": writable(panel.description),
    }
    return ElementTree.tostring(root, encoding="unicode")


def _draw(panel: Panel) -> str:
    stream = io.StringIO()
    with matplotlib.rc_context(_LOOKS), warnings.catch_warnings():
        # The browser has letters that matplotlib's font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(_WIDTH, _FRAME + panel.height), layout="constrained")
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


def _is_left_out(element: ElementTree.Element, hatches: set[str]) -> bool:
    if element.tag == f"{_SVG}pattern":
        return element.get("id") in hatches
    # Style sheet and description would be those of the whole page.
    is_empty = element.tag == f"{_SVG}g" and not len(element)
    return is_empty or element.tag.endswith(("}style", "}metadata"))


def _adapt(
    element: ElementTree.Element, names: Mapping[str, str], variables: Mapping[str, str]
) -> None:
    """Names that are unique in the page, its colours and its letters."""
    # Indentation.
    element.text, element.tail = (
        text if text and text.strip() else None for text in (element.text, element.tail)
    )
    _name(element, names)
    # Of patterns; only a style may hold variables.
    paints = [
        f"{name}: {element.attrib.pop(name)}"
        for name in ("fill", "stroke")
        if name in element.attrib
    ]
    style = "; ".join([*paints, *filter(None, [element.attrib.pop("style", "")])])
    if style:
        style = re.sub("#[0-9a-f]{6}", lambda found: variables.get(found[0], found[0]), style)
        # The family is the page's.
        style = _FONT.sub(
            lambda font: f"font-size: {font[2]}; font-weight: {font[1] or 400}", style
        )
        element.set("style", _FAMILY.sub("", style))
    for name, value in element.attrib.items():
        if name in _REFERRING:
            value = _REFERENCE.sub(lambda found: names.get(found[0], found[0]), value)
        elif name in _PLACING:
            value = re.sub(r"\d+\.\d+", _short, " ".join(value.split()))
        element.set(name, value)


def _name(element: ElementTree.Element, names: Mapping[str, str]) -> None:
    given = element.attrib.pop("id", "")
    if given.startswith("run:"):
        _, index, text = given.split(":", 2)
        element.set("data-run", index)
        if text:
            title = ElementTree.Element(f"{_SVG}title")
            title.text = text
            element.insert(0, title)
    elif given in names:
        element.set("id", names[given])
    if _LINK in element.attrib:
        element.set("href", element.attrib.pop(_LINK))


def _short(number: re.Match[str]) -> str:
    return f"{round(float(number[0]), 2):g}"
