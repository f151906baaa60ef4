"""How runs are told apart everywhere: one table of colours, dashes, markers, hatches and names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.markers import MarkerStyle

from mmkd.evaluation.comparison import BASELINE, DISTILLED, TEACHER, GroupResult, Role

__all__ = [
    "GRID",
    "GROUND",
    "INK",
    "TRUTH_COLOR",
    "RunStyle",
    "group_styles",
    "in_order",
    "run_label",
    "run_styles",
]

# Of letters and axes, of the paper and of the grid.
INK, GROUND, GRID = "#1b1f26", "#ffffff", "#dedbd3"
TRUTH_COLOR = "#009E73"
_LABELS = {BASELINE: "student, plain", DISTILLED: "student, distilled", TEACHER: "teacher"}
_ROLES: tuple[Role, ...] = ("baseline", "run", "teacher")


@dataclass(frozen=True)
class RunStyle:
    """How a run is drawn: told apart from the others by more than its colour.

    Args:
        index: The page's colour of the run is the CSS variable ``--run-<index>``.
        color: On a light ground.
        dark_color: On a dark ground.
        hatch: Of bars, as matplotlib writes it.
        dash: Lengths on and off, in widths of the line; empty for a solid one.
        marker: Of points, as matplotlib calls it.
    """

    index: int
    color: str
    dark_color: str
    hatch: str
    dash: tuple[float, ...]
    marker: str

    @property
    def marker_path(self) -> str:
        """The marker as the data of an SVG path, within 1 of the origin."""
        style = MarkerStyle(self.marker)
        polygon = np.asarray(style.get_path().transformed(style.get_transform()).to_polygons()[0])
        # SVG's vertical axis points down.
        points = [f"{x:g},{y:g}" for x, y in (polygon * (2, -2)).round(3) + 0.0]
        return f"M{'L'.join(points)}Z"


# Colour on a light and on a dark ground. Okabe and Ito's palette: told apart by colour-blind
# readers, and by lightness in grey. Its yellow is too light for a line on white, and is darker
# here; the two darkest are lighter on a dark ground.
_BASELINE = ("#D55E00", "#F0793A", "///", (5.0, 2.0), "o")
# Not quite black, for which matplotlib's SVG names no colour that a page could change.
_TEACHER = ("#010101", "#FFFFFF", "", (1.0, 1.2), "^")
_COLORS = (
    ("#0072B2", "#4AA8E8"),
    ("#CC79A7", "#CC79A7"),
    ("#E69F00", "#E69F00"),
    ("#56B4E9", "#56B4E9"),
    ("#B8AD1C", "#F0E442"),
    (TRUTH_COLOR, "#1FBF92"),
)
# The lists differ in length, so that they do not begin anew together.
_HATCHES = ("", "xxx", "\\\\\\", "---", "...", "|||", "++")
_DASHES: tuple[tuple[float, ...], ...] = (
    (),
    (8, 2, 2, 2),
    (12, 3),
    (3, 1.5),
    (6, 1.5, 1, 1.5, 1, 1.5),
)
_MARKERS = ("s", "D", "X", "v", "P", "*", "<", ">")


def run_styles(roles: Mapping[str, Role]) -> dict[str, RunStyle]:
    """The style of each run, in the order of the roles.

    Args:
        roles: By the runs' names.
    """
    styles, used = {}, 0
    for index, (name, role) in enumerate(roles.items()):
        if role == "baseline":
            styles[name] = RunStyle(index, *_BASELINE)
        elif role == "teacher":
            styles[name] = RunStyle(index, *_TEACHER)
        else:
            styles[name] = RunStyle(
                index,
                *_COLORS[used % len(_COLORS)],
                _HATCHES[used % len(_HATCHES)],
                _DASHES[used % len(_DASHES)],
                _MARKERS[used % len(_MARKERS)],
            )
            used += 1
    return styles


def in_order(roles: Mapping[str, Role]) -> dict[str, Role]:
    """Baseline first, teacher last, the others as they were given."""
    return dict(sorted(roles.items(), key=lambda each: _ROLES.index(each[1])))


def group_styles(groups: Iterable[GroupResult]) -> dict[str, RunStyle]:
    """The styles of a comparison's runs by their names, in the order in which they are drawn."""
    return run_styles(in_order({group.name: group.role for group in groups}))


def run_label(name: str) -> str:
    """What a run is called in a picture that stands alone."""
    return _LABELS.get(name, name)
