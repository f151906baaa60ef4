"""Shared by the studies: run configs one after another, and report them with their environment."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mmengine.config import Config
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import Progress

from mmkd.evaluation.environment import describe_environment
from mmkd.evaluation.runs import (
    RunResult,
    run_iterations,
    spread,
    stored_result,
    train_and_evaluate,
)

METRICS = ("mAP", "AP50", "AP75")


def run_all(jobs: Sequence[tuple[str, Config]]) -> list[RunResult]:
    """Trains and evaluates each named config that was not finished before."""
    results = []
    work = [run_iterations(config) for _, config in jobs]
    with Progress(console=Console(file=sys.stdout)) as progress:
        whole = progress.add_task("", total=sum(work))
        for (name, config), iterations in zip(jobs, work, strict=True):
            progress.update(whole, description=f"{name}, seed {config.randomness.seed}")
            if stored_result(config) is not None:
                progress.advance(whole, iterations)
            results.append(train_and_evaluate(config, name, partial(progress.advance, whole)))
    return results


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
