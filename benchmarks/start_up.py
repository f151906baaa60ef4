"""How long mmkd's commands and imports take to start, and which modules that time goes to.

python benchmarks/start_up.py
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from study import report

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "import mmkd": ["-c", "import mmkd"],
    "import torch, mmkd": ["-c", "import torch, mmkd"],
    "import mmkd; mmkd.losses": ["-c", "import mmkd; mmkd.losses"],
    "import mmkd; mmkd.DistillHook": ["-c", "import mmkd; mmkd.DistillHook"],
    "mmkd --version": ["-m", "mmkd", "--version"],
    "mmkd --help": ["-m", "mmkd", "--help"],
    "mmkd eval --help": ["-m", "mmkd", "eval", "--help"],
    "mmkd --wrong": ["-m", "mmkd", "--wrong"],
    "mmkd yolo train --wrong": ["-m", "mmkd", "yolo", "train", "--wrong"],
}
RESULT = Path(__file__).parent / "results/start_up.md"
# Whose imports are listed.
PROFILED = ("import mmkd", "mmkd --help", "import mmkd; mmkd.DistillHook")
_LINE = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \|( *)(\S+)")


@dataclass(frozen=True)
class Import:
    """A module's first import: its name and its time in ms, without and with what it imports."""

    module: str
    own: float
    whole: float


def seconds(arguments: Sequence[str]) -> tuple[float, float]:
    """Of one process: wall time, and processor time, which depends less on what else runs."""
    begun, used = time.perf_counter(), _processor_time()
    subprocess.run([sys.executable, *arguments], capture_output=True)
    return time.perf_counter() - begun, _processor_time() - used


def _processor_time() -> float:
    times = os.times()
    return times.children_user + times.children_system


def slowest_imports(arguments: Sequence[str], count: int) -> list[Import]:
    """Those with the most time of their own, by ``python -X importtime``."""
    command = [sys.executable, "-X", "importtime", *arguments]
    printed = subprocess.run(command, capture_output=True, text=True).stderr
    found = [
        Import(match[4], int(match[1]) / 1000, int(match[2]) / 1000)
        for match in _LINE.finditer(printed)
    ]
    return sorted(found, key=lambda each: -each.own)[:count]


def times_table(runs: int) -> list[str]:
    """Medians over runs that take turns, so that a busy moment meets all commands."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for arguments in COMMANDS.values():
        seconds(arguments)  # the first start fills the disk's cache
    for _ in range(runs):
        for name, arguments in COMMANDS.items():
            found[name].append(seconds(arguments))
    rows = ["| command | median | fastest | slowest | processor, median |", "|---|---|---|---|---|"]
    for name, values in found.items():
        wall, processor = zip(*values, strict=True)
        figures = (median(wall), min(wall), max(wall), median(processor))
        rows.append(f"| `{name}` | {' | '.join(f'{each:.2f} s' for each in figures)} |")
    return rows


def imports_table(name: str, count: int) -> list[str]:
    """The slowest imports of one command."""
    rows = [f"Slowest imports of `{name}`:", "", "| module | own | with what it imports |"]
    rows.append("|---|---|---|")
    for each in slowest_imports(COMMANDS[name], count):
        rows.append(f"| `{each.module}` | {each.own:.1f} ms | {each.whole:.1f} ms |")
    return rows


def main(
    runs: Annotated[int, typer.Option(min=1, help="Of every command.")] = 7,
    count: Annotated[int, typer.Option(min=1, help="Imports to list.")] = 8,
    out: Annotated[Path, typer.Option(help="File to write.")] = RESULT,
) -> None:
    """Measure, print and store."""
    about = f"Wall times of whole processes, {runs} runs of each command; processor time beside."
    lines = ["# Start-up", "", about, "", *times_table(runs)]
    for name in PROFILED:
        lines += ["", *imports_table(name, count)]
    report(lines, out)


if __name__ == "__main__":
    typer.run(main)
