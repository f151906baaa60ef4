"""What each method adds to a training step: time, memory and trained parameters, in one run.

    python benchmarks/method_cost.py
    python benchmarks/method_cost.py --pair configs/detection/methods/ld_gfl_r50-fpn_r101_1x_coco.py
    python benchmarks/method_cost.py --pair bccd_faster_rcnn --size 160 --batch-size 8
    python benchmarks/method_cost.py --pair cifar10_10k --size 32 --batch-size 64
    python benchmarks/method_cost.py --pair cifar10_10k_strong --size 32 --batch-size 64
    python benchmarks/method_cost.py --size 32 --batch-size 64 \\
        --pair configs/classification/methods/resnet8x4_resnet32x4-sp_1xb64_cifar100.py

Every published pair of configs/detection/methods, or of configs/classification/methods, lends its
terms (and what else it changes in a classifier) to one and the same student and teacher: those of
--pair, with random weights. Where --pair is a cell of the proving ground, it is the methods of
method_arms.py as they are trained there; of cifar10_10k, those of method_study.py with its ordinary
teacher, and of cifar10_10k_strong with the strong one. The student's own step, its step with mmkd's
default and its step with each method's terms are timed in turn, round by round, all run by
MMEngine's Runner. Each one's peak memory is that of a process of its own.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from cifar_settings import Setting
from cifar_study import STUDENT
from method_arms import METHODS, applies, method_terms
from method_settings import (
    CURRICULA,
    PAIRS,
    assistant_itself,
    config_of,
    curricula,
    fitnet_stages,
    settings,
    write_network,
)
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from proving_cells import CELLS, Cell
from published_methods import IN_TWO_TRAININGS, PublishedMethod, published_methods
from step_cost import distill_settings, distilled_runner, environment, plain_runner, read
from step_timing import ROOT, parse_args, peak_bytes, peaks, summary, timings, write

from mmkd import DistillHook
from mmkd.configs import config_file

DEFAULT = "default"
DETECTORS = sorted((ROOT / "configs/detection/methods").glob("*.py"))


def detectors(pair: str) -> dict[str, dict[str, Any]]:
    """Terms by method, of those whose published model is of the pair's kind."""
    kind, found = read(pair).model.type, {}
    for path in DETECTORS:
        config = read(str(path))
        if config.model.type == kind:
            found.setdefault(path.stem.split("_")[0], distill_settings(config).terms)
    return found


def classifiers(pair: str) -> dict[str, PublishedMethod]:
    """By method of one training, of the pair's student."""
    found = published_methods(Path(pair).stem.split("_")[0])
    return {name: each for name, each in found.items() if name not in IN_TWO_TRAININGS}


def of_cell(cell: Cell, folder: str) -> str:
    """A config of a cell's student and teacher."""
    student, teacher = (
        config_file(f"detection/{name}.py") for name in (cell.student, cell.teacher)
    )
    file = Path(folder) / f"{cell.name}.py"
    file.write_text(
        f"_base_ = {student!r}\n"
        f"custom_hooks = [dict(type='mmkd.DistillHook', teacher=dict(config={teacher!r}))]\n"
    )
    return str(file)


def of_study(pair: str, folder: str) -> str:
    """A config of the method study's student alone, under the pair's name."""
    file = Path(folder) / f"{pair}.py"
    file.write_text(f"_base_ = {config_file(STUDENT)!r}\n")
    return str(file)


def study_setting(variant: str, pair: str, folder: str) -> Setting:
    """How the study trains by a method; weights are random, and so are those of a curriculum."""
    if variant not in CURRICULA:
        return settings(1)[variant]
    teacher = PAIRS[pair]
    students = []
    for name, setting in (("assistant", assistant_itself()), ("peer", Setting())):
        config = config_of(setting, 0, teacher, Path(), Path(folder))
        students.append(dict(config=write_network(config, Path(folder) / f"{name}.py")))
    first = dict(config=config_file(teacher.config))
    return curricula(first, *students, fitnet_stages(1)[1])[variant]


def methods_of(pair: str) -> list[str]:
    """mmkd's default first."""
    if Path(pair).stem in PAIRS:
        return [*(name for name in settings(1) if name != "plain"), *CURRICULA]
    if cell := CELLS.get(Path(pair).stem):
        return [DEFAULT, *(name for name in METHODS if applies(name, cell))]
    is_classifier = read(pair).model.type == "ImageClassifier"
    return [DEFAULT, *(classifiers(pair) if is_classifier else detectors(pair))]


def runner_of(variant: str, args: argparse.Namespace, folder: str) -> Runner:
    """That has begun to train the student by a method; ``'plain'``: alone."""
    if variant == "plain":
        return plain_runner(args, folder)
    if (pair := Path(args.pair).stem) in PAIRS:
        setting = study_setting(variant, pair, folder)
        config = config_of(setting, 0, PAIRS[pair], Path(), Path(folder))
        terms = _at_last(distill_settings(config)["terms"])
        return distilled_runner(terms, args, folder, variant, config)
    if variant == DEFAULT:
        return distilled_runner(None, args, folder, variant)
    if cell := CELLS.get(Path(args.pair).stem):
        return distilled_runner(method_terms(variant, cell), args, folder, variant)
    config = read(args.pair)
    if config.model.type != "ImageClassifier":
        return distilled_runner(detectors(args.pair)[variant], args, folder, variant)
    method = classifiers(args.pair)[variant]
    config.model.head.update(method.head)
    if method.preprocessor is not None:
        config.data_preprocessor.type = method.preprocessor
    if method.teacher is not None:
        distill_settings(config)["teacher"] = method.teacher
    return distilled_runner(_at_last(method.terms), args, folder, variant, config)


def _at_last(terms: Mapping[str, Any]) -> dict[str, Any]:
    """As they are when first stages are over."""
    stages = {"paraphrase", "pretext"}
    return {
        name: {key: 1 if key in stages else value for key, value in term.items()}
        for name, term in terms.items()
    }


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
    parser.add_argument(
        "--pair", default=str(default), help="config of a distilled student, or a cell"
    )
    names = {path.stem.split("_")[0] for path in DETECTORS} | set(METHODS)
    names |= {*settings(1), *CURRICULA}
    args = parse_args(
        parser, "method_cost", ["plain", DEFAULT, *sorted(names)], batch_size=2, rounds=7
    )
    if args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the Runner takes a GPU where it sees one
    if args.threads:
        torch.set_num_threads(args.threads)
    MMLogger.get_instance("method_cost", log_level="ERROR")  # or every initial weight is told
    with TemporaryDirectory() as folder:
        if args.pair in CELLS:
            args.pair = of_cell(CELLS[args.pair], folder)
        elif args.pair in PAIRS:
            args.pair = of_study(args.pair, folder)
        _measure(args)


def _measure(args: argparse.Namespace) -> None:
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
