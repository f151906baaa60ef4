"""Shared by the benchmarks of a step: timing in turn, peak memory, tables and files."""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).parents[1]
OBJECTS_PER_IMAGE = 7  # COCO's mean


def parse_args(
    parser: argparse.ArgumentParser,
    name: str,
    variants: Sequence[str],
    *,
    batch_size: int,
    rounds: int,
    threads: int | None = None,
) -> argparse.Namespace:
    """Adds the common options to a parser, and reads the command line.

    Args:
        parser: With the benchmark's own options.
        name: Of the files of results.
        variants: Those whose peak memory is measured.
        batch_size, rounds, threads: Defaults; ``threads=None`` leaves them to torch.
    """
    parser.add_argument("--size", type=int, default=320, help="side of the images, in pixels")
    parser.add_argument("--batch-size", type=int, default=batch_size)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--threads",
        type=int,
        default=threads,
        help=f"of the CPU (default: {threads or 'as torch chooses'})",
    )
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument(
        "--warmup",
        type=int,
        default=11,
        help="rounds that do not count; mmkd looks at every value in its first 10",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help=f"Markdown to write, the JSON beside it (default: benchmarks/results/{name}*.md)",
    )
    parser.add_argument("--peak-of", choices=variants, help=argparse.SUPPRESS)
    args = parser.parse_args()
    suffix = "" if args.device == "cpu" else "_cuda"
    args.out = args.out or ROOT / f"benchmarks/results/{name}{suffix}.md"
    if args.rounds < 2:
        parser.error(f"--rounds must be 2 or more for quartiles, got {args.rounds}")
    return args


@torch.no_grad()
def settle_batch_norms(module: nn.Module, images: Tensor) -> None:
    """Gives the BatchNorm layers of an untrained network the statistics of a batch.

    Those that they begin with would let activations fade, through dozens of layers, into denormal
    numbers, which a CPU is slow at.
    """
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.train()
            norm.momentum = None  # the plain mean, here of one batch
    module(images)


def seconds(step: Callable[[], None], device: str) -> float:
    """How long one call takes on the device."""
    if device == "cpu":
        start = time.perf_counter()
        step()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    step()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000


def timings(
    steps: Mapping[str, Callable[[], None]], args: argparse.Namespace
) -> dict[str, list[float]]:
    """Seconds of every round, by variant; in turn, so that a busy machine hurts all alike."""
    variants = tuple(steps)
    times: dict[str, list[float]] = {variant: [] for variant in variants}
    for index in range(args.warmup + args.rounds):
        first = index % len(variants)  # no variant always comes after the same one
        for variant in variants[first:] + variants[:first]:
            elapsed = seconds(steps[variant], args.device)
            if index >= args.warmup:
                times[variant].append(elapsed)
    return times


def summary(times: Mapping[str, list[float]]) -> dict[str, Any]:
    """Medians and quartiles of seconds, by variant."""
    return {
        "seconds": {v: statistics.median(each) for v, each in times.items()},
        "quartiles": {v: statistics.quantiles(each, n=4)[::2] for v, each in times.items()},
    }


def peak_bytes(step: Callable[[], None], device: str) -> int:
    """Peak memory of this process after some steps."""
    for _ in range(3):
        step()
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peaks(variants: Sequence[str], *options: str) -> dict[str, int]:
    """Peak memory by variant, each from a process with this one's arguments and ``options``.

    To be asked first: a process counts its parent's memory as its own until it starts.
    """
    command = [sys.executable, *sys.argv, *options, "--peak-of"]
    return {
        variant: int(
            subprocess.run(
                [*command, variant], check=True, stdout=subprocess.PIPE, text=True
            ).stdout.split()[-1]
        )
        for variant in variants
    }


def table(
    labels: Mapping[str, str], result: Mapping[str, Any], shares: Mapping[str, str], device: str
) -> list[str]:
    """Lines of a Markdown table.

    Args:
        labels: Text of the rows, by variant.
        result: From :func:`summary`, with ``peak_bytes`` of the variants that have any.
        shares: Title to variant of the columns that tell times as shares of that variant's.
        device: ``'cpu'`` or ``'cuda'``.
    """
    times = result["seconds"]
    memory = "allocated on the GPU" if device == "cuda" else "of the process"
    lines = [
        f"| | median, ms | quartiles, ms | {' | '.join(shares)} | peak MiB {memory} |",
        "|---" * (4 + len(shares)) + "|",
    ]
    for variant, label in labels.items():
        low, high = result["quartiles"][variant]
        columns = " | ".join(f"{times[variant] / times[whole]:.3f}" for whole in shares.values())
        peak = result["peak_bytes"].get(variant)
        lines.append(
            f"| {label} | {1000 * times[variant]:.1f} | {1000 * low:.1f} to {1000 * high:.1f} "
            f"| {columns} | {'–' if peak is None else f'{peak / 2**20:.0f}'} |"
        )
    return lines


def write(
    lines: Sequence[str], about: Mapping[str, Any], result: Mapping[str, Any], out: Path
) -> None:
    """Prints the Markdown, and keeps it with its JSON.

    Args:
        lines: The Markdown.
        about: What the figures depend on; ends the Markdown and begins the JSON.
        result: The figures, for the JSON.
        out: File for the Markdown.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps({**about, **result}, indent=2) + "\n")
    text = "\n".join([*lines, "", *[f"- {key}: {value}" for key, value in about.items()], ""])
    out.write_text(text)
    print(text)
