"""Shared by the studies: results as tables, with their environment."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from mmkd.evaluation.environment import describe_environment
from mmkd.evaluation.runs import RunResult, spread

METRICS = ("mAP", "AP50", "AP75")


def score_table(results: Sequence[RunResult]) -> list[str]:
    """Markdown table, a line a name in the order of appearance."""
    lines = [
        "| run | seeds | mAP | AP50 | AP75 | parameters | training, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(result.name for result in results):
        runs = [result for result in results if result.name == name]
        scores = " | ".join(spread([run.scores[metric] for run in runs]) for metric in METRICS)
        seconds = spread([run.training_seconds for run in runs])
        parameters = f"{runs[0].parameters / 1e6:.2f} M"
        lines.append(f"| {name} | {len(runs)} | {scores} | {parameters} | {seconds} |")
    return lines


def report(lines: Sequence[str], out: Path) -> None:
    """Prints the Markdown and keeps it."""
    about = [f"- {key}: {value}" for key, value in describe_environment().items()]
    text = "\n".join([*lines, "", *about, ""])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)
    Console(file=sys.stdout).print(Markdown(text))
