"""The methods of detectors' papers beside each other: what they gain, and what a step costs.

    python benchmarks/proving_ground.py --data /path/to/sets --cells bccd_faster_rcnn --seeds 0 1 \\
        --arms pkd pkd-s0.5 cwd cwd-s0.5 fgd fgd-s0.5
    python benchmarks/method_cost.py --pair bccd_faster_rcnn --size 160 --batch-size 8
    python benchmarks/detection_methods.py

Joins what the first two have written, for every cell in which three methods or more were trained.
Costs are those of MMDetection's pairs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from method_arms import METHODS
from step_timing import ROOT

from mmkd.output_files import write_text
from mmkd.report.figures.canvas import write_picture
from mmkd.report.figures.panels import PLAIN_HEIGHT, Panel, Plot, tidy
from mmkd.report.numbers import signed

# At which a balanced method was trained: of each of its terms.
SHARES = ("s0.5", "s0.3")
FEWEST = 3
# mmkd's own, which is CWD's of the neck.
DEFAULT = "cwd-s0.5"
PUBLISHED, BALANCED = "#b5651d", "#0b6e99"


def arms_of(method: str, cell: Mapping[str, Any]) -> tuple[Any, Any]:
    """Those at the published weight and at a share; None where it was not trained."""
    arms = cell["arms"]
    shared = next((arms[n] for s in SHARES if (n := f"{method}-{s}") in arms), None)
    return arms.get(method), shared


def gain_of(arm: Mapping[str, Any] | None) -> str:
    """Over plain, with its interval and each seed's."""
    if arm is None:
        return ""
    found = arm["mAP"]["difference"]
    if len(found["seeds"]) < 2:
        return f"{signed(found['value'])} (one seed)"
    ends = f"{signed(found['low'])} to {signed(found['high'])}"
    return f"{signed(found['value'])} ({ends}; {', '.join(map(signed, found['seeds']))})"


def lead_of(arm: Mapping[str, Any] | None, default: Mapping[str, Any] | None) -> list[float]:
    """Over the default, of each seed that both were trained with."""
    if arm is None or default is None:
        return []
    own, theirs = (dict(zip(a["seeds"], a["mAP"]["values"], strict=True)) for a in (arm, default))
    return [own[seed] - theirs[seed] for seed in own if seed in theirs]


def lead_text(leads: Sequence[float]) -> str:
    """Their mean, and each."""
    if not leads:
        return ""
    return f"{signed(fmean(leads))} ({', '.join(map(signed, leads))})"


def value_of(arm: Mapping[str, Any] | None) -> float:
    """The gain."""
    return float("-inf") if arm is None else arm["mAP"]["difference"]["value"]


def section(cell: Mapping[str, Any], cost: Mapping[str, Any] | None) -> list[str]:
    """The table of a cell, its best method first."""
    found = {m: arms for m in METHODS if any(arms := arms_of(m, cell))}
    default = cell["arms"].get(DEFAULT)
    leads = {m: lead_of(shared, default) for m, (_, shared) in found.items()}
    lines = [
        "",
        f"## {cell['title'][0].upper()}{cell['title'][1:]}",
        "",
        "| method | published weight | a share of the gradient | that over the default, same seeds "
        "| step over plain | peak MiB over plain | trained parameters |",
        "|---|---|---|---|---|---|---|",
    ]
    # Methods differ in their seeds, and seeds in their luck.
    for name in sorted(found, key=lambda m: -fmean(leads[m] or [float("-inf")])):
        gains = " | ".join(map(gain_of, found[name]))
        lines.append(f"| {name} | {gains} | {lead_text(leads[name])} | {_cost_of(name, cost)} |")
    return lines


def _cost_of(method: str, cost: Mapping[str, Any] | None) -> str:
    if cost is None or method not in cost["seconds"]:
        return " | | "
    ratio = cost["seconds"][method] / cost["seconds"]["plain"]
    memory = (cost["peak_bytes"][method] - cost["peak_bytes"]["plain"]) / 2**20
    return f"{ratio:.2f} | {memory:+.0f} | {cost['added_parameters'][method]:,}"


def plot_of(cells: Mapping[str, Mapping[str, Any]], costs: Mapping[str, Any]) -> Plot:
    """Gain by cost, a panel a cell; without a cost, by method."""
    panels = [
        Panel(
            f"methods-{name}",
            cell["title"],
            f"Gain by cost, {cell['title']}",
            "Points; the table has the same numbers.",
            PLAIN_HEIGHT + 1,
            partial(_draw, cell=cell, cost=costs[name]),
        )
        for name, cell in cells.items()
    ]
    handles = {
        label: Line2D([], [], color=color, marker=marker, linestyle="none")
        for label, color, marker in (
            ("published weight", PUBLISHED, "s"),
            ("a share of the gradient", BALANCED, "o"),
        )
    }
    return Plot("Gain in mAP over plain, by the cost of a step", panels, handles, shared=())


def _draw(axis: Axes, *, cell: Mapping[str, Any], cost: Mapping[str, Any]) -> None:
    axis.axhline(0, color="#999999", linewidth=1)
    for method in METHODS:
        if method not in cost["seconds"]:
            continue
        ratio = cost["seconds"][method] / cost["seconds"]["plain"]
        for arm, color, marker in zip(
            arms_of(method, cell), (PUBLISHED, BALANCED), "so", strict=True
        ):
            if arm is not None:
                axis.plot([ratio], [value_of(arm)], marker, color=color, markersize=5)
        highest = max(map(value_of, arms_of(method, cell)))
        if highest > float("-inf"):
            axis.annotate(
                method, (ratio, highest), xytext=(4, 2), textcoords="offset points", fontsize=7
            )
    axis.set(xlabel="time of a step over plain", ylabel="mAP over plain, points")
    tidy(axis)


def read_cost(results: Path, cell: str) -> dict[str, Any] | None:
    """None where it was not measured."""
    file = results / f"method_cost_{cell}.json"
    return json.loads(file.read_text()) if file.is_file() else None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results")
    args = parser.parse_args(arguments)
    summaries = json.loads((args.results / "proving_ground.json").read_text())
    cells = {
        name: cell
        for name, cell in summaries.items()
        if sum(any(arms_of(method, cell)) for method in METHODS) >= FEWEST
    }
    costs = {name: read_cost(args.results, name) for name in cells}
    lines = [
        "# The methods beside each other",
        "",
        "Gain in mAP over plain, in points (95% interval over seeds and images; each seed's).",
        *(text for name, cell in cells.items() for text in section(cell, costs[name])),
        "",
        "Command: `python benchmarks/detection_methods.py`, of the results of "
        "`benchmarks/proving_ground.py` and `benchmarks/method_cost.py`.",
    ]
    out = args.results / "detection_methods.md"
    write_text(out, "\n".join(lines) + "\n")
    known = {name: cell for name, cell in cells.items() if costs[name] is not None}
    if known:
        write_picture(plot_of(known, costs), out.with_suffix(".png"))
    print(out.read_text())


if __name__ == "__main__":
    main()
