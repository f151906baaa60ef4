"""What each method adds to a training step: time, memory and trained parameters, in one run.

    python benchmarks/method_cost.py
    python benchmarks/method_cost.py --pair configs/detection/methods/ld_gfl_r50-fpn_r101_1x_coco.py
    python benchmarks/method_cost.py --size 32 --batch-size 64 \\
        --pair configs/classification/methods/resnet8x4_resnet32x4-sp_1xb64_cifar100.py

Every published pair of configs/detection/methods, or of configs/classification/methods, lends its
terms to one and the same student and teacher: those of --pair, with random weights. The student's
own step, its step with mmkd's default and its step with each method's terms are timed in turn,
round by round, all run by MMEngine's Runner. Each one's peak memory is that of a process of its
own.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from step_cost import distill_settings, distilled_runner, environment, plain_runner, read
from step_timing import ROOT, parse_args, peak_bytes, peaks, summary, timings, write

from mmkd import DistillHook

DETECTORS = sorted((ROOT / "configs/detection/methods").glob("*.py"))
CLASSIFIERS = sorted((ROOT / "configs/classification/methods").glob("*.py"))


def methods_of(pair: str) -> dict[str, dict[str, Any] | None]:
    """Terms by method, of those whose published model is of the pair's kind; mmkd's default
    first."""
    kind = read(pair).model.type
    found: dict[str, dict[str, Any] | None] = {"default": None}
    if kind == "ImageClassifier":
        published = [path for path in CLASSIFIERS if _networks(path) == _networks(Path(pair))]
    else:
        published = DETECTORS
    for path in published:
        config = read(str(path))
        if config.model.type == kind:
            found.setdefault(_method(path), _at_last(distill_settings(config).terms))
    return found


def _method(path: Path) -> str:
    name = path.stem.split("_")
    return name[0] if path in DETECTORS else name[1].partition("-")[2]


def _networks(path: Path) -> tuple[str, str]:
    """Of a classification pair's config."""
    student, teacher, *_ = path.stem.split("_")
    return student, teacher.partition("-")[0]


def _at_last(terms: dict[str, Any]) -> dict[str, Any]:
    """As they are when first stages are over."""
    for term in terms.values():
        if "paraphrase" in term:
            term["paraphrase"] = 1
    return terms


def runner_of(variant: str, args: argparse.Namespace, folder: str) -> Runner:
    """That has begun to train the student by a method; ``'plain'``: alone."""
    if variant == "plain":
        return plain_runner(args, folder)
    return distilled_runner(methods_of(args.pair)[variant], args, folder, variant)


def added_parameters(runner: Runner) -> int:
    """Those that are trained beside the student."""
    distillers = [hook.distillers for hook in runner.hooks if isinstance(hook, DistillHook)]
    return sum(p.numel() for each in distillers if each is not None for p in each.parameters())


def table(result: Mapping[str, Any]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [
        "| | step over plain | median, ms | peak MiB over plain | trained parameters |",
        "|---|---|---|---|---|",
    ]
    for variant, seconds in result["seconds"].items():
        memory = (result["peak_bytes"][variant] - result["peak_bytes"]["plain"]) / 2**20
        lines.append(
            f"| {variant} | {seconds / result['seconds']['plain']:.3f} | {1000 * seconds:.0f} "
            f"| {memory:+.0f} | {result['added_parameters'][variant]:,} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = ROOT / "configs/detection/faster_rcnn/faster-rcnn_mbv2-fpn_r50-distill_90k_coco.py"
    parser.add_argument("--pair", default=str(default), help="config of a distilled student")
    names = ["plain", *{_method(path) for path in (*DETECTORS, *CLASSIFIERS)}, "default"]
    args = parse_args(parser, "method_cost", names, batch_size=2, rounds=7)
    if args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the Runner takes a GPU where it sees one
    if args.threads:
        torch.set_num_threads(args.threads)
    MMLogger.get_instance("method_cost", log_level="ERROR")  # or every initial weight is told
    if args.peak_of:
        with TemporaryDirectory() as folder:
            step = runner_of(args.peak_of, args, folder).train_loop.step
            print(peak_bytes(step, args.device))
        return
    variants = ["plain", *methods_of(args.pair)]
    memory = peaks(variants)
    with TemporaryDirectory() as folder:
        runners = {variant: runner_of(variant, args, folder) for variant in variants}
        steps = {variant: runner.train_loop.step for variant, runner in runners.items()}
        result = {
            **summary(timings(steps, args)),
            "peak_bytes": memory,
            "added_parameters": {v: added_parameters(r) for v, r in runners.items()},
        }
    out = args.out.with_stem(f"{args.out.stem}_{Path(args.pair).stem}")
    write(["# Cost of each method", "", *table(result)], environment(args), result, out)


if __name__ == "__main__":
    main()
