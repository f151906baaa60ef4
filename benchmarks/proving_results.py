"""What the proving ground's runs came to: one JSON, one table, one forest plot."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from proving_arms import DEFAULT, TWICE
from proving_cells import DISTILL_MODEL, Cell
from rich.console import Console
from rich.markdown import Markdown

from mmkd.evaluation.comparison import BASELINE, TEACHER
from mmkd.evaluation.intervals import Estimate
from mmkd.output_files import write_text
from mmkd.report.exports import as_json
from mmkd.report.figures.canvas import write_picture
from mmkd.report.figures.panels import Panel, Plot, tidy
from mmkd.report.numbers import signed, span, spread
from mmkd.report.results import compare_results
from mmkd.report.sentences import by_seed
from mmkd.report.terminal import bullets
from mmkd.work_dirs.environment import describe_environment
from mmkd.work_dirs.run_result import RunResult

__all__ = ["merged", "summary", "write_summaries"]

# Of the table and the plot; the other arms have a table of their own.
_MAIN = (DEFAULT, DISTILL_MODEL)
_COLORS = {DEFAULT: "#0b6e99", DISTILL_MODEL: "#b5651d"}
_ROW = 0.42  # inches

Summaries = Mapping[str, Mapping[str, Any]]


def summary(cell: Cell, results: Sequence[RunResult]) -> dict[str, Any]:
    """Scores of a cell's arms, and their differences to plain, as plain values."""
    comparison = compare_results(results).comparison
    assert comparison is not None
    found = as_json(comparison)
    arms: dict[str, Any] = {}
    for name, run in found["runs"].items():
        own = sorted((r for r in results if r.name == name), key=lambda r: r.seed)
        arms[name] = dict(
            seeds=[r.seed for r in own],
            mAP=run["metrics"]["mAP"],
            parameters=own[0].parameters,
            training_seconds=[round(r.training_seconds, 1) for r in own],
        )
    return dict(
        title=cell.title,
        epochs=cell.epochs,
        start=cell.start,
        images=found["images"],
        environment={k: v for k, v in results[0].environment.items() if k != "command"},
        arms=arms,
    )


def merged(known: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """A cell of earlier calls with one of a new call.

    An arm is the new call's, but where an earlier one had its seeds and others too.

    Raises:
        ValueError: A seed of such an arm came to something else this time, so that the calls do not
            belong in one table: other versions, or another machine.
    """
    arms = dict(known.get("arms", {}))
    for name, arm in new["arms"].items():
        old = _values(arms[name]) if name in arms else {}
        own = _values(arm)
        if own.keys() < old.keys():
            differ = {seed for seed in own if not math.isclose(own[seed], old[seed], rel_tol=1e-9)}
            if differ:
                raise ValueError(
                    f"{new['title']}, {name}: seeds {sorted(differ)} do not come to what they came "
                    "to before; give another --out, or train all seeds anew"
                )
        else:
            arms[name] = arm
    return {**new, "arms": arms}


def _values(arm: Mapping[str, Any]) -> dict[int, float]:
    return dict(zip(arm["seeds"], arm["mAP"]["values"], strict=True))


def write_summaries(summaries: Summaries, out: Path) -> None:
    """Writes ``out`` and beside it tables (``.md``), which it prints, and a plot (``.png``)."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, json.dumps(summaries, indent=1) + "\n")
    environment = [f"{key}: {value}" for key, value in describe_environment().items()]
    text = "\n".join(
        [
            "# The proving ground",
            "",
            *_main_table(summaries),
            "",
            *_conclusions(summaries),
            "",
            "## All settings",
            "",
            *_arm_table(summaries),
            "",
            *_schedule_table(summaries),
            "",
            *bullets(environment),
            "",
        ]
    )
    write_text(out.with_suffix(".md"), text)
    Console(file=sys.stdout).print(Markdown(text))
    plot = _forest(summaries)
    if plot is not None:
        write_picture(plot, out.with_suffix(".png"))


def _arms(cell: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: cell["arms"][name] for name in names if name in cell["arms"]}


def _gain(arm: Mapping[str, Any]) -> Estimate:
    """Over plain."""
    stored = arm["mAP"]["difference"]
    low, high = (math.nan if stored[end] is None else stored[end] for end in ("low", "high"))
    return Estimate(stored["value"], low, high, tuple(stored["seeds"]))


def _text(arm: Mapping[str, Any]) -> str:
    gain = _gain(arm)
    found = f"{signed(gain.value)}, {span(gain)}; {by_seed(gain) or 'one seed'}"
    return f"{spread(arm['mAP']['values'])} ({found})"


def _main_table(summaries: Summaries) -> list[str]:
    lines = [
        "mAP in percent, mean ± standard deviation over the seeds (gain over plain, its 95% "
        "interval over seeds and images; each seed's).",
        "",
        "| cell | plain | mmkd, default | Ultralytics' `distill_model` | teacher |",
        "|---|---|---|---|---|",
    ]
    for cell in summaries.values():
        found = _arms(cell, _MAIN)
        texts = [_text(found[name]) if name in found else "" for name in _MAIN]
        plain, teacher = (
            spread(cell["arms"][name]["mAP"]["values"]) for name in (BASELINE, TEACHER)
        )
        lines.append(f"| {cell['title']} | {plain} | {texts[0]} | {texts[1]} | {teacher} |")
    return lines


def _conclusions(summaries: Summaries) -> list[str]:
    """What the figures say of the defaults, in the terms of their aims."""
    gains = {
        name: _gain(c["arms"][DEFAULT]) for name, c in summaries.items() if DEFAULT in c["arms"]
    }
    if not gains:
        return []
    above = sum(gain.value > 0 for gain in gains.values())
    clear = sum(gain.is_clear and gain.value > 0 for gain in gains.values())
    lines = [
        f"The default's mean gain is above zero in {above} of {len(gains)} cells, and clear of it "
        f"(the interval and every seed) in {clear}; "
        f"{signed(fmean(gain.value for gain in gains.values()))} points in the mean of the cells.",
    ]
    theirs = {
        name: _gain(c["arms"][DISTILL_MODEL])
        for name, c in summaries.items()
        if name in gains and DISTILL_MODEL in c["arms"]
    }
    if theirs:
        ahead = sum(gains[name].value >= gain.value for name, gain in theirs.items())
        lines.append(
            f"It is at or above `distill_model`'s in {ahead} of the {len(theirs)} YOLO cells."
        )
    return bullets(lines)


def _arm_table(summaries: Summaries) -> list[str]:
    names = list(
        dict.fromkeys(
            name
            for cell in summaries.values()
            for name in cell["arms"]
            if name not in (BASELINE, TEACHER) and not name.endswith(TWICE)
        )
    )
    lines = [
        "Gain over plain in points (seeds).",
        "",
        f"| setting | {' | '.join(cell['title'] for cell in summaries.values())} |",
        "|---" * (len(summaries) + 1) + "|",
    ]
    for name in names:
        cells = (cell["arms"].get(name) for cell in summaries.values())
        texts = ("" if arm is None else _short(arm) for arm in cells)
        lines.append(f"| {name}{', default' * (name == DEFAULT)} | {' | '.join(texts)} |")
    return lines


def _short(arm: Mapping[str, Any]) -> str:
    gain = _gain(arm)
    return f"{signed(gain.value)} ({by_seed(gain) or 'one seed'})"


def _schedule_table(summaries: Summaries) -> list[str]:
    """Whether the plain students' schedules are long enough."""
    longer = [name + TWICE for name in (BASELINE, DEFAULT)]
    found = [c for c in summaries.values() if longer[0] in c["arms"]]
    if not found:
        return []
    lines = [
        "## Is the schedule long enough?",
        "",
        "On the cell's schedule and on one twice as long (the default's gain there, of each seed); "
        "a figure without a spread is one seed's, the first.",
        "",
        "| cell | epochs | plain | default | plain, twice as long | default, twice as long |",
        "|---|---|---|---|---|---|",
    ]
    for cell in found:
        plain, ours = (
            cell["arms"].get(name, {}).get("mAP", {}).get("values", []) for name in longer
        )
        gains = ", ".join(signed(b - a) for a, b in zip(plain, ours, strict=False))
        once = (
            spread(cell["arms"][name]["mAP"]["values"][: len(plain)])
            for name in (BASELINE, DEFAULT)
        )
        texts = [*once, spread(plain), f"{spread(ours)} ({gains})" if ours else ""]
        lines.append(f"| {cell['title']} | {cell['epochs']} | {' | '.join(texts)} |")
    return lines


def _forest(summaries: Summaries) -> Plot | None:
    """Gains with their intervals, a row a cell."""
    rows = {c["title"]: found for c in summaries.values() if (found := _arms(c, _MAIN))}
    if not rows:
        return None
    panel = Panel(
        "forest",
        "",
        "Gain in mAP over plain training",
        "Gains and intervals by cell; the table has the same numbers.",
        len(rows) * _ROW,
        partial(_draw_forest, rows=rows),
    )
    shown = [name for name in _MAIN if any(name in found for found in rows.values())]
    labels = {DEFAULT: f"mmkd, default ({DEFAULT})", DISTILL_MODEL: "Ultralytics' distill_model"}
    handles = {
        labels[name]: Line2D([], [], color=_COLORS[name], marker="o", linewidth=2) for name in shown
    }
    handles["one seed"] = Line2D([], [], color="#777777", marker="|", linestyle="none")
    return Plot("Gain in mAP over plain training, 95% intervals", [panel], handles)


def _draw_forest(axis: Axes, *, rows: Mapping[str, Mapping[str, Any]]) -> None:
    axis.axvline(0, color="#999999", linewidth=1)
    for row, found in enumerate(rows.values()):
        for index, (name, arm) in enumerate(found.items()):
            gain, color = _gain(arm), _COLORS[name]
            y = (row + 0.5 + (index - (len(found) - 1) / 2) * 0.3) * _ROW
            axis.plot([gain.low, gain.high], [y, y], color=color, linewidth=2)
            axis.plot(gain.seeds, [y] * len(gain.seeds), "|", color=color, alpha=0.6)
            axis.plot(gain.value, y, "o", color=color)
    axis.set_yticks([(row + 0.5) * _ROW for row in range(len(rows))], list(rows))
    axis.set_ylim(len(rows) * _ROW, 0)
    axis.set_xlabel("mAP (IoU 0.50:0.95) over plain, points")
    tidy(axis, "x")
