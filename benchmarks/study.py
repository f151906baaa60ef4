"""Shared by the studies: results as tables, with their environment."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from mmkd.report.numbers import signed, spread
from mmkd.report.results import compare_results, score_lines
from mmkd.report.terminal import bullets
from mmkd.work_dirs.environment import describe_environment
from mmkd.work_dirs.run_result import RunResult


def score_table(results: Sequence[RunResult]) -> list[str]:
    """Detectors compared with the runs ``plain``, as Markdown; then what the figures say."""
    return score_lines(compare_results(results))


def accuracy_table(results: Sequence[RunResult], plain: str = "plain") -> list[str]:
    """The same for classifiers; ``added`` counts parameters beyond those of the run ``plain``."""
    lines = [
        "| run | seeds | top-1, % | over plain | parameters | added | training, s |",
        "|---|---|---|---|---|---|---|",
    ]
    runs = by_name(results)
    base, floor = runs[plain][0].parameters, mean(top1(runs[plain]))
    for name, of_name in runs.items():
        gain, parameters = mean(top1(of_name)) - floor, of_name[0].parameters
        seconds = spread([run.training_seconds for run in of_name])
        lines.append(
            f"| {name} | {len(of_name)} | {spread(top1(of_name))} | {signed(gain)} | "
            f"{parameters:,} | {parameters - base:,} | {seconds} |"
        )
    return lines


def cost_cells(method: str, cost: Mapping[str, Any] | None) -> str:
    """Of a table's row: a step's time, and the memory, over plain; parameters that are trained.

    Args:
        method: As method_cost.py calls it.
        cost: What that has found; None where it was not measured.
    """
    if cost is None or method not in cost["seconds"]:
        return " | | "
    ratio = cost["seconds"][method] / cost["seconds"]["plain"]
    memory = (cost["peak_bytes"][method] - cost["peak_bytes"]["plain"]) / 2**20
    return f"{ratio:.2f} | {memory:+.0f} | {cost['added_parameters'][method]:,}"


def trend_table(held: Mapping[str, Sequence[bool]]) -> list[str]:
    """Published trends: each agrees where it holds in every seed, disagrees where in none.

    Args:
        held: By the trend's text, seed by seed; one seed tells neither.
    """
    lines = ["| published trend | holds in seeds | verdict |", "|---|---|---|"]
    for text, seeds in held.items():
        verdict = "agrees" if all(seeds) else "unclear" if any(seeds) else "disagrees"
        if len(seeds) == 1:
            verdict = "one seed"
        lines.append(f"| {text} | {sum(seeds)} of {len(seeds)} | {verdict} |")
    return lines


def by_name(results: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    """Results by name, in the order of appearance."""
    names = dict.fromkeys(result.name for result in results)
    return {name: [result for result in results if result.name == name] for name in names}


def top1(results: Sequence[RunResult]) -> list[float]:
    """Their accuracies in percent."""
    return [result.scores["top1"] for result in results]


def report(lines: Sequence[str], out: Path) -> None:
    """Prints the Markdown and keeps it."""
    about = bullets([f"{key}: {value}" for key, value in describe_environment().items()])
    text = "\n".join([*lines, "", *about, ""])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)
    Console(file=sys.stdout).print(Markdown(text))
