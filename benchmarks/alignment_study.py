"""Does distillation align the student's classifier with the teacher's? Dua's study, small.

    python benchmarks/alignment_study.py [--data data/cifar10_10k [--strong resnet56.safetensors]]

A ResNet-14, or He et al.'s published ResNet-56, teaches a ResNet-8 of the same last width, at
several temperatures; the plain student is compared with the same teacher. Without --data, on
scikit-learn's handwritten digits. Finished runs are kept under --runs, so the study can be stopped
and continued.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from mmengine.config import Config
from strong_teacher import Teacher, strong_teacher
from study import report, trend_table
from torch import Tensor
from torch.nn.functional import cosine_similarity

from mmkd.analysis import pearson_correlation
from mmkd.checkpoint import read_weights
from mmkd.configs import config_file
from mmkd.report.numbers import spread
from mmkd.runs.mmengine.classification import ClassificationRecipe
from mmkd.runs.running import Job, run_all
from mmkd.work_dirs.run_result import RunResult

STUDENT_DEPTH, TEACHER_DEPTH = 8, 14
TEMPERATURES = (1, 2, 4, 7, 10)
PLAIN = "plain"
# 0.1 cross-entropy + 0.9 KD (section 2).
KD_WEIGHT = 0.9
# Of a training's 240 epochs: the rate falls after these, and the first 120 are left out (A.4).
MILESTONES, WARM_UP = (150 / 240, 180 / 240, 210 / 240), 120 / 240
TEACHER_WEIGHT_DECAY = 5e-4
# What counts as a strong correlation here.
STRONG = 0.5

PUBLISHED = {
    PLAIN: "strongly negative, -0.971",
    "T = 1": "below the peak",
    "T = 2": "below the peak",
    # The text gives 0.972 without saying at which temperature.
    "T = 4": "strongly positive, the peak, about 0.97",
    "T = 7": "below the peak",
    "T = 10": "strongly negative",
}


_ABOUT_DIGITS = (
    " The digits' augmentation, batch size and number of epochs were settled while looking at "
    "correlations of shorter trials, so that training does not saturate at once: a small setting's "
    "figures, not evidence against the paper's."
)


@dataclass(frozen=True)
class Claim:
    """A finding of the paper, as a test of one seed's correlations by run."""

    text: str
    holds: Callable[[Mapping[str, float]], bool]


CLAIMS = (
    Claim(f"plain training: r below -{STRONG}", lambda r: r[PLAIN] < -STRONG),
    Claim(f"T = 4: r above {STRONG}", lambda r: r["T = 4"] > STRONG),
    Claim("r rises from T = 1 to T = 4", lambda r: r["T = 1"] < r["T = 4"]),
    Claim("r falls from T = 4 to T = 10", lambda r: r["T = 4"] > r["T = 10"]),
    Claim(f"T = 10: r below -{STRONG}", lambda r: r["T = 10"] < -STRONG),
)


def digits_data() -> dict[str, Any]:
    """What the CIFAR-10 config is given instead of its data."""
    pack = dict(type="PackInputs")
    # Digits are learned at once: moving them leaves an objective to follow.
    move = dict(type="RandomCrop", crop_size=8, padding=1)
    data = dict(type="mmkd.HandwrittenDigits", _delete_=True)
    return dict(
        train_dataloader=dict(
            batch_size=128, dataset=dict(data, split="train", pipeline=[move, pack])
        ),
        test_dataloader=dict(dataset=dict(data, split="test", pipeline=[pack])),
        model=dict(data_preprocessor=dict(mean=[78.0] * 3, std=[96.0] * 3)),
    )


def study_config(
    args: argparse.Namespace, name: str, depth: int, seed: int, weight_decay: float
) -> Config:
    """A plain training in the paper's schedule, shortened."""
    config = Config.fromfile(config_file("classification/cifar10_10k/resnet8_cifar10-10k.py"))
    config.merge_from_dict(digits_data() if args.data is None else {})
    if args.data is not None:
        for loader in (config.train_dataloader, config.test_dataloader):
            loader.dataset.data_root = str(args.data)
    config.model.backbone.depth = depth
    config.optim_wrapper.optimizer.update(lr=0.05, weight_decay=weight_decay)
    milestones = [round(share * args.epochs) for share in MILESTONES]
    config.param_scheduler = [dict(type="MultiStepLR", by_epoch=True, milestones=milestones)]
    config.train_cfg.max_epochs = args.epochs
    config.default_hooks.checkpoint.interval = args.epochs
    config.randomness.seed = seed
    folder = name.replace(" ", "").replace("=", "")
    config.work_dir = str(args.runs / data_name(args) / f"{folder}_wd{weight_decay:g}_seed{seed}")
    return config


def student_config(
    args: argparse.Namespace, teacher: Teacher, temperature: int | None, seed: int
) -> Config:
    """The student's training, plain where there is no temperature."""
    config = study_config(args, run_name(temperature), STUDENT_DEPTH, seed, args.weight_decay)
    alignment = dict(type="mmkd.ClassifierAlignmentHook", checkpoint=teacher.checkpoint)
    alignment["begin"] = warm_up(args)
    config.custom_hooks = [alignment]
    if temperature is not None:
        config.model.head.loss.loss_weight = 1 - KD_WEIGHT
        loss = dict(type="mmkd.KDLoss", temperature=float(temperature))
        kd = dict(student="head.fc", teacher="head.fc", loss=loss, weight=KD_WEIGHT)
        hook = dict(
            type="mmkd.DistillHook",
            teacher=dict(config=teacher.config, checkpoint=teacher.checkpoint),
            terms=dict(kd=kd),
            probe_size=32,
        )
        config.custom_hooks.append(hook)
    return config


def run_name(temperature: int | None) -> str:
    return PLAIN if temperature is None else f"T = {temperature}"


def data_name(args: argparse.Namespace) -> str:
    """Of the runs' folder; students of another teacher are others."""
    name = "digits" if args.data is None else args.data.name
    return f"{name}_strong" if args.strong else name


def teacher_of(args: argparse.Namespace) -> Teacher:
    """Trained here, or published."""
    if args.strong:
        found = strong_teacher(args.strong, args.data, args.runs / "strong")
        return replace(found, name="ResNet-56", config=config_file(found.config))
    config = study_config(args, "teacher", TEACHER_DEPTH, 0, TEACHER_WEIGHT_DECAY)
    [result] = run_all([Job("teacher", ClassificationRecipe(config), "teacher", cost=1.5)])
    file = Path(config.work_dir) / "teacher.py"
    config.dump(file)
    name = f"ResNet-{TEACHER_DEPTH}"
    return Teacher(name, str(file), 64, result.checkpoint, result.scores["top1"])


def warm_up(args: argparse.Namespace) -> int:
    """Epochs that the correlation leaves out."""
    return round(WARM_UP * args.epochs)


@dataclass(frozen=True)
class Alignment:
    """What a run says: mu after the warm-up and at its end, and Pearson's r in between."""

    first: float
    last: float
    correlation: float

    @classmethod
    def of(cls, result: RunResult, begin: int) -> Alignment:
        """Reads the series from the run's checkpoint."""
        series = torch.load(result.checkpoint, weights_only=False)["mmkd_alignment"]
        distance, objective = series["distance"][begin:], series["objective"][begin:]
        return cls(distance[0], distance[-1], pearson_correlation(distance, objective))


def classifier_of(checkpoint: str | Path) -> Tensor:
    """Its weights in a row."""
    return read_weights(checkpoint).weights["head.fc.weight"].flatten().double()


def two_digits(values: Sequence[float]) -> str:
    """Mean, and standard deviation where there are several values."""
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def tables(results: Sequence[RunResult], begin: int, teacher: str) -> list[str]:
    """The runs, then the paper's claims.

    Args:
        results: Of all settings and seeds.
        begin: Epochs that the correlation leaves out.
        teacher: Its checkpoint.
    """
    theirs = classifier_of(teacher)
    ours = {(run.name, run.seed): classifier_of(run.checkpoint) for run in results}
    found = {(run.name, run.seed): Alignment.of(run, begin) for run in results}
    seeds = sorted({run.seed for run in results})
    lines = [
        "| run | top-1, % | μ after warm-up | μ at the end | ‖W_s‖ / ‖W_t‖ | cos(W_s, W_t) "
        "| Pearson's r | published r |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(run.name for run in results):
        top1 = spread([run.scores["top1"] for run in results if run.name == name])
        of_name = [found[name, seed] for seed in seeds]
        weights = [ours[name, seed] for seed in seeds]
        columns = [
            *(
                two_digits([getattr(each, field) for each in of_name])
                for field in ("first", "last")
            ),
            two_digits([float(each.norm() / theirs.norm()) for each in weights]),
            two_digits([float(cosine_similarity(each, theirs, dim=0)) for each in weights]),
            two_digits([each.correlation for each in of_name]),
        ]
        lines.append(f"| {name} | {top1} | {' | '.join(columns)} | {PUBLISHED[name]} |")
    by_seed = [
        {name: each.correlation for (name, of), each in found.items() if of == seed}
        for seed in seeds
    ]
    held = {claim.text: [claim.holds(r) for r in by_seed] for claim in CLAIMS}
    return [*lines, "", *trend_table(held)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10's images (default: digits)")
    parser.add_argument("--strong", type=Path, help="published weights of the ResNet-56")
    parser.add_argument("--epochs", type=int, default=40, help="8 or more")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--weight-decay",
        type=float,
        default=0.0,
        help="of the students (the paper: none in section A.2, 5e-4 in A.4)",
    )
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--runs", type=Path, default=Path("work_dirs/alignment_study"))
    parser.add_argument(
        "--out", type=Path, help="default: benchmarks/results/alignment_study*.md, by the data"
    )
    args = parser.parse_args()
    if args.epochs < 8:
        parser.error("--epochs must be 8 or more: the second half is correlated")
    if args.strong and args.data is None:
        parser.error("--strong knows CIFAR-10's classes: give --data")
    # Of another path to the same folder, finished runs would be taken for others.
    args.data = args.data and args.data.resolve()

    teacher = teacher_of(args)
    jobs = []
    # All of one seed before the next, so that a study that is stopped is balanced.
    for seed in range(args.seeds):
        for temperature in (None, *TEMPERATURES):
            settings = student_config(args, teacher, temperature, seed)
            name = run_name(temperature)
            jobs.append(Job(name, ClassificationRecipe(settings), name))
    results = run_all(jobs, args.workers)
    lines = [
        f"# Classifier alignment per temperature, {data_name(args)}",
        "",
        f"{teacher.name} ({teacher.accuracy:.1f}%) -> ResNet-{STUDENT_DEPTH}, "
        f"{args.epochs} epochs, weight decay {args.weight_decay:g}, "
        f"{'one seed' if args.seeds == 1 else f'{args.seeds} seeds'}. "
        "μ = ‖W_t - W_s‖ after each epoch; r is its correlation with the epoch's mean total loss, "
        f"over the epochs after the first {warm_up(args)}. Published: Dua, CIFAR-100, "
        "ResNet-32x4 -> ResNet-8x4, one run each. A trend agrees where it holds in every seed, "
        "disagrees where in none; one seed tells neither."
        f"{_ABOUT_DIGITS if args.data is None else ''}",
        "",
        "μ² = ‖W_t‖² + ‖W_s‖² - 2 ‖W_t‖ ‖W_s‖ cos: where the cosine is near 0, μ tells how large "
        "the student's classifier is, and the sign of r whether it still grows while the loss "
        "falls (r below 0) or shrinks (above).",
        "",
        *tables(results, warm_up(args), teacher.checkpoint),
    ]
    report(lines, args.out or Path(f"benchmarks/results/alignment_study{_suffix(args)}.md"))


def _suffix(args: argparse.Namespace) -> str:
    """Of the files that other data and another weight decay than the usual have."""
    decay = f"_wd{args.weight_decay:g}" if args.weight_decay else ""
    return decay if args.data is None else f"_{data_name(args)}{decay}"


if __name__ == "__main__":
    main()
