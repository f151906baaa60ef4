"""The methods of detectors' papers beside each other: what they gain, and what a step costs.

    python benchmarks/proving_ground.py --data /path/to/sets --cells bccd_faster_rcnn --seeds 0 1 \\
        --arms pkd pkd-s0.5 cwd cwd-s0.5 fgd fgd-s0.5
    python benchmarks/method_cost.py --pair bccd_faster_rcnn --size 160 --batch-size 8
    python benchmarks/detection_methods.py

Joins what the first two have written, for every cell in which three methods or more were trained.
Costs are those of MMDetection's pairs. A processor of another kind gives other figures: what was
trained on one, with plain and default runs of its own, stands in a proving_ground_NAME.json of its
own (--out), and adds its methods and seeds to a cell's.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from method_arms import METHODS
from step_timing import ROOT
from study import cost_cells

from mmkd.evaluation.comparison import BASELINE
from mmkd.output_files import write_text
from mmkd.report.figures.canvas import write_picture
from mmkd.report.figures.panels import PLAIN_HEIGHT, Panel, Plot, tidy
from mmkd.report.numbers import signed

# At which a balanced method was trained: of each of its terms.
SHARES = ("s0.5", "s0.3")
FEWEST = 3
# mmkd's own, which is CWD's of the neck.
DEFAULT = "cwd-s0.5"
Parts = Sequence[Mapping[str, Any]]
PUBLISHED, BALANCED = "#b5651d", "#0b6e99"


@dataclass(frozen=True)
class Gains:
    """Of a method at one weight.

    Args:
        over_plain: By seed, in points of mAP.
        over_default: The same, of the seeds that the default was trained with.
        ends: Of the interval over seeds and images; None where all were not trained together.
    """

    over_plain: Mapping[int, float]
    over_default: Mapping[int, float]
    ends: tuple[float, float] | None

    @property
    def value(self) -> float:
        """The mean."""
        return fmean(self.over_plain.values())

    def __str__(self) -> str:
        found = ", ".join(map(signed, self.over_plain.values()))
        if len(self.over_plain) < 2:
            return f"{found} (one seed)"
        ends = f"{signed(self.ends[0])} to {signed(self.ends[1])}; " if self.ends else ""
        return f"{signed(self.value)} ({ends}{found})"


def gains_of(arm: str, parts: Parts) -> Gains | None:
    """None where it was not trained.

    Args:
        arm: As in the proving ground.
        parts: What is known of a cell, from each file.
    """
    over_plain: dict[int, float] = {}
    over_default: dict[int, float] = {}
    ends: list[tuple[float, float]] = []
    for arms in (part["arms"] for part in parts):
        own = _by_seed(arms, arm)
        new = own.keys() - over_plain.keys()
        if not new:
            continue
        plain, default = _by_seed(arms, BASELINE), _by_seed(arms, DEFAULT)
        over_plain |= {seed: own[seed] - plain[seed] for seed in sorted(new)}
        over_default |= {seed: own[seed] - default[seed] for seed in sorted(new & default.keys())}
        found = arms[arm]["mAP"]["difference"]
        ends.append((found["low"], found["high"]))
    if not over_plain:
        return None
    return Gains(over_plain, over_default, ends[0] if len(ends) == 1 else None)


def _by_seed(arms: Mapping[str, Any], name: str) -> dict[int, float]:
    arm = arms.get(name)
    return dict(zip(arm["seeds"], arm["mAP"]["values"], strict=True)) if arm else {}


def both_gains(method: str, parts: Parts) -> tuple[Gains | None, Gains | None]:
    """At the published weight and at a share."""
    shares = (gains_of(f"{method}-{share}", parts) for share in SHARES)
    return gains_of(method, parts), next((each for each in shares if each), None)


def lead_text(gains: Gains | None) -> str:
    """Over the default: the mean, and each seed's."""
    if gains is None or not gains.over_default:
        return ""
    leads = gains.over_default.values()
    return f"{signed(fmean(leads))} ({', '.join(map(signed, leads))})"


def _rank(shared: Gains | None) -> float:
    # Methods differ in their seeds, and seeds in their luck.
    leads = shared.over_default.values() if shared else ()
    return fmean(leads) if leads else float("-inf")


def section(parts: Parts, cost: Mapping[str, Any] | None) -> list[str]:
    """The table of a cell, its best method first."""
    found = {m: both for m in METHODS if any(both := both_gains(m, parts))}
    title = parts[0]["title"]
    lines = [
        "",
        f"## {title[0].upper()}{title[1:]}",
        "",
        "| method | published weight | a share of the gradient | that over the default, same seeds "
        "| step over plain | peak MiB over plain | trained parameters |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in sorted(found, key=lambda m: -_rank(found[m][1])):
        published, shared = found[name]
        lines.append(
            f"| {name} | {published or ''} | {shared or ''} | {lead_text(shared)} "
            f"| {cost_cells(name, cost)} |"
        )
    return lines


def plot_of(cells: Mapping[str, Parts], costs: Mapping[str, Any]) -> Plot:
    """Gain by cost, a panel a cell; without a cost, by method."""
    panels = [
        Panel(
            f"methods-{name}",
            parts[0]["title"],
            f"Gain by cost, {parts[0]['title']}",
            "Points; the table has the same numbers.",
            PLAIN_HEIGHT + 1,
            partial(_draw, parts=parts, cost=costs[name]),
        )
        for name, parts in cells.items()
    ]
    handles = {
        label: Line2D([], [], color=color, marker=marker, linestyle="none")
        for label, color, marker in (
            ("published weight", PUBLISHED, "s"),
            ("a share of the gradient", BALANCED, "o"),
        )
    }
    return Plot("Gain in mAP over plain, by the cost of a step", panels, handles, shared=())


def _draw(axis: Axes, *, parts: Parts, cost: Mapping[str, Any]) -> None:
    axis.axhline(0, color="#999999", linewidth=1)
    ratios = {
        m: cost["seconds"][m] / cost["seconds"]["plain"]
        for m in METHODS.keys() & cost["seconds"].keys()
    }
    # Names of neighbours stand above and below, so that they lie apart.
    for index, (method, ratio) in enumerate(sorted(ratios.items(), key=lambda item: item[1])):
        both = both_gains(method, parts)
        for gains, color, marker in zip(both, (PUBLISHED, BALANCED), "so", strict=True):
            if gains is not None:
                axis.plot([ratio], [gains.value], marker, color=color, markersize=5)
        values = [gains.value for gains in both if gains is not None]
        if values:
            axis.annotate(
                method,
                (ratio, max(values)),
                xytext=(4, -9 if index % 2 else 3),
                textcoords="offset points",
                fontsize=7,
            )
    axis.margins(x=0.12)
    axis.set(xlabel="time of a step over plain", ylabel="mAP over plain, points")
    tidy(axis)


def read_cells(results: Path) -> dict[str, list[Mapping[str, Any]]]:
    """What is known of each cell, from one file after the other."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for file in (results / "proving_ground.json", *sorted(results.glob("proving_ground_*.json"))):
        for name, cell in json.loads(file.read_text()).items():
            found.setdefault(name, []).append(cell)
    return found


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
    cells = {
        name: parts
        for name, parts in read_cells(args.results).items()
        if sum(any(both_gains(method, parts)) for method in METHODS) >= FEWEST
    }
    costs = {name: read_cost(args.results, name) for name in cells}
    lines = [
        "# The methods beside each other",
        "",
        "Gain in mAP over plain, in points (95% interval over seeds and images; each seed's).",
        *(text for name, parts in cells.items() for text in section(parts, costs[name])),
        "",
        "Command: `python benchmarks/detection_methods.py`, of the results of "
        "`benchmarks/proving_ground.py` and `benchmarks/method_cost.py`.",
    ]
    out = args.results / "detection_methods.md"
    write_text(out, "\n".join(lines) + "\n")
    known = {name: parts for name, parts in cells.items() if costs[name] is not None}
    if known:
        write_picture(plot_of(known, costs), out.with_suffix(".png"))
    print(out.read_text())


if __name__ == "__main__":
    main()
