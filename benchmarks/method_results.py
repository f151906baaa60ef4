"""What the method study's runs came to: one JSON, tables beside the papers' own, one figure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from math import hypot, inf, sqrt
from pathlib import Path
from statistics import mean
from typing import Any

from adjustText import adjust_text
from cifar_study import pooled_deviation
from matplotlib.axes import Axes
from strong_teacher import Teacher
from study import cost_cells, report

from mmkd.output_files import write_text
from mmkd.report.figures.canvas import write_picture
from mmkd.report.figures.panels import PLAIN_HEIGHT, Panel, Plot, tidy
from mmkd.report.numbers import signed, spread
from mmkd.work_dirs.environment import describe_environment
from mmkd.work_dirs.run_result import RunResult

__all__ = ["check_schedule", "with_runs", "write_results"]

PLAIN = "plain"
_CHEN_CIFAR = "Chen et al., Table 4 (CIFAR-100, ResNet-32x4 to ResNet-8x4)"
_MM_TURNED = "M&M, Table 4 (the same pair, trained on pairs of augmented images)"
_MM_IMAGENET = "M&M, Table 6 (the same pair)"
# Top-1 accuracies, by the study's names. M&M's Table 6 has errors.
PUBLISHED: Mapping[str, Mapping[str, float]] = {
    _CHEN_CIFAR: {
        "ensemble, q = 3": 76.08,
        "crd": 75.51,
        "SRRL": 75.33,
        "fitnet": 73.50,
        "KD, T = 4": 73.33,
        "cc": 72.97,
        "sp": 72.94,
        PLAIN: 72.93,
        "ft": 72.86,
        "rkd": 71.90,
    },
    _MM_TURNED: {
        "LogSum, MLP projector": 76.44,
        "sskd": 76.20,
        "crd": 75.90,
        "fitnet": 74.31,
        "at": 74.26,
        "KD, T = 4": 73.33,
        PLAIN: 72.51,
    },
    "M&M, Table 4 (the same pair, on views by RandAugment)": {
        "LogSum, MLP projector": 78.37,
        "crd": 77.69,
        "dkd": 77.52,
        "KD, T = 4": 75.84,
    },
    "Chen et al., Tables 1 and 2 (ImageNet, ResNet34 to ResNet18)": {
        "ensemble, q = 3": 71.94,
        "cid": 71.86,
        "SRRL": 71.71,
        "reviewkd": 71.61,
        "afd": 71.38,
        "sp": 70.94,
        "crd": 70.85,
        "KD, T = 4": 70.83,
        PLAIN: 69.75,
    },
    _MM_IMAGENET: {
        "LogSum + KL": 71.63,
        "reviewkd": 71.61,
        "crd": 71.38,
        "at": 70.70,
        "KD, T = 4": 70.66,
        "cc": 69.96,
        PLAIN: 69.75,
    },
}

# Their standard deviations over so many seeds, where the paper has them; rows that were taken over
# from CRD's framework have that one's number.
TRIALS, TRIALS_OF_CRD = 3, 5
OF_CRD = ("crd", "fitnet", "KD, T = 4", "cc", "sp", "ft", "rkd")
DEVIATIONS: Mapping[str, Mapping[str, float]] = {
    _CHEN_CIFAR: {
        "ensemble, q = 3": 0.33,
        "crd": 0.18,
        "SRRL": 0.04,
        "fitnet": 0.28,
        "KD, T = 4": 0.25,
        "cc": 0.17,
        "sp": 0.23,
        PLAIN: 0.28,
        "ft": 0.12,
        "rkd": 0.11,
    },
}
TIED, OTHER = "=", "≠"
# Rows of other methods than have their names here: CRD's framework has other losses of CC and FT;
# M&M took over rows of SSKD's table, which have KD beside them, and that of CRD with KD.
OTHERWISE: Mapping[str, Sequence[str]] = {
    _CHEN_CIFAR: ("cc", "ft"),
    _MM_TURNED: ("crd", "fitnet", "at"),
    _MM_IMAGENET: ("crd", "cc"),
}

INTRODUCTION = """\
1,000 training and 200 test images a class; the student is ResNet-8 with a stem of stride 2. Its
schedule is longer than the 5 epochs of `cifar_study.py`, after which SimKD, which has no loss on
labels, was still 17 points below the plain student. All methods share it, with the rises and falls
of their weights in proportion. FT's paraphraser takes the first 12.5 % of it and SSKD's teacher
network the first 25 %, which the papers spend before it; FitNet's hint stage, a tenth as long,
comes before it. CRD draws 4,096 other images, not 16,384, of a set of 10,000.

The ordinary teacher was trained on the same 10,000 photographs. The strong one is as it was
published, trained on CIFAR-10's 50,000 uncompressed images, and not fine-tuned. What learns alone
(plain, ema, uskd, born again) is trained once for both where they share a number of epochs. The
assistant and the peer of the one born again are one each, whatever their students' seeds; the
peer's initial weights are not theirs.

Weights are those published for CIFAR-100, as `configs/classification` names them, beside ImageNet's
tables too. None is published for LogSum alone (here 1, the best of 0.3, 1 and 2 in a look at one
seed of a shorter schedule on this test set, a look that no other method had), for FSP beside the
task (50; its paper's two stages are left out), for spherical KD (0.9), and for the curricula (KD's
own); CC's is that of Hu's Knowledge-Distillation-Zoo, the moving average's are of two programs of
its authors'.

Methods are ranked by their gain over plain, on the seeds that both have. A row is trained by naming
it, as in `--methods LogSum crd --seeds 0 1 2`. A seed's standard deviation, by which methods are
told apart, is pooled over all of a teacher's methods, though their own differ."""

# Top-1 in percent, by method and seed.
Scores = Mapping[str, Mapping[str, float]]


def check_schedule(known: Mapping[str, Any], teachers: Sequence[str], epochs: int) -> None:
    """Raises where a file's students were trained on another schedule.

    Raises:
        ValueError: Of which teacher, and for how long.
    """
    for name in teachers:
        if name in known and (before := known[name]["epochs"]) != epochs:
            raise ValueError(
                f"the file has students of the {name} teacher after {before} epochs, not after "
                f"{epochs}; give another --out"
            )


def with_runs(
    known: Mapping[str, Any], teacher: Teacher, results: Sequence[RunResult], epochs: int
) -> dict[str, Any]:
    """All that is known of the study, with the runs of one more call of the same schedule."""
    before = known.get(teacher.name, dict(methods={}))
    methods = {name: dict(of) for name, of in before["methods"].items()}
    parameters = dict(before.get("parameters", {}))
    for result in results:
        methods.setdefault(result.name, {})[str(result.seed)] = result.scores["top1"]
        parameters[result.name] = result.parameters
    own = dict(
        epochs=epochs,
        accuracy=teacher.accuracy,
        environment=describe_environment(),
        methods=methods,
        parameters=parameters,
    )
    return {**known, teacher.name: own}


def write_results(found: Mapping[str, Any], costs: Mapping[str, Any], out: Path) -> None:
    """Writes ``out`` (Markdown), which it prints, its JSON and, where costs are known, a figure.

    Args:
        found: From :func:`with_runs`.
        costs: What method_cost.py found, by the teacher's name.
        out: The Markdown's file.
    """
    write_text(out.with_suffix(".json"), json.dumps(found, indent=1) + "\n")
    lines = ["# Every method on 10,000 photographs of CIFAR-10", "", INTRODUCTION, ""]
    if plot := _plot(found, costs):
        picture = out.with_suffix(".png")
        write_picture(plot, picture)
        lines += [f"![accuracy by cost]({picture.name})", ""]
    for name, of in found.items():
        lines += [
            f"## From the {name} teacher ({of['accuracy']:.1f} % on the test set)",
            "",
            f"{of['epochs']} epochs. The last call: {of['environment']['command']}",
            "",
            *_ranking(of["methods"], of.get("parameters", {}), costs.get(name)),
            "",
            *(text for title in PUBLISHED for text in _beside(title, of["methods"])),
        ]
    report(lines, out)


def _values(scores: Scores, name: str) -> list[float]:
    return list(scores[name].values())


def _gain(scores: Scores, name: str) -> float | None:
    """Over the plain student, on the seeds that both have; None where they share none."""
    own, plain = scores[name], scores[PLAIN]
    shared = own.keys() & plain.keys()
    return mean(own[seed] - plain[seed] for seed in shared) if shared else None


def _ranking(
    scores: Scores, parameters: Mapping[str, int], cost: Mapping[str, Any] | None
) -> list[str]:
    """Methods from the best to the worst."""
    lines = [
        "| rank | method | seeds | top-1, % | over plain | deployed parameters | step over plain "
        "| peak MiB over plain | trained parameters |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    gains = {name: _gain(scores, name) for name in scores}
    names = sorted(scores, key=lambda name: -inf if (gain := gains[name]) is None else gain)
    for rank, name in enumerate(reversed(names), start=1):
        own, difference = _values(scores, name), gains[name]
        gain = "" if difference is None else signed(difference)
        deployed = f"{parameters[name]:,}" if name in parameters else ""
        lines.append(
            f"| {rank} | {name} | {len(own)} | {spread(own)} | {gain} | {deployed} "
            f"| {cost_cells(name, cost)} |"
        )
    return lines


def _beside(title: str, scores: Scores) -> list[str]:
    """A published table, its order pair by pair: which of them hold here."""
    published = {name: value for name, value in PUBLISHED[title].items() if name in scores}
    if len(published) < 2:
        return []
    deviation = pooled_deviation({name: _values(scores, name) for name in scores})
    heads = list(published)[1:]
    lines = [
        f"### {title}",
        "",
        "Each row's method is published above each column's. Here it is above (+), below (-) or "
        "neither (·: the difference is below two standard errors, or seeds disagree, or fewer than "
        f"two are shared), on the seeds that both have; {TIED} is tied in the paper, within two "
        f"standard errors of a difference; {OTHER} is trained otherwise there.",
        "",
        f"| method | published | here | {' | '.join(heads)} |",
        "|---" * (len(heads) + 3) + "|",
    ]
    marks = {
        (better, worse): _not_compared(title, better, worse)
        or _mark(scores[better], scores[worse], deviation)
        for better, worse in combinations(published, 2)
    }
    for name, value in published.items():
        row = " | ".join(marks.get((name, other), "") for other in heads)
        lines.append(f"| {name} | {value:.2f} | {spread(_values(scores, name))} | {row} |")
    plus, minus, unclear = (sum(mark == each for mark in marks.values()) for each in "+-·")
    lines += [
        "",
        f"Of {plus + minus + unclear} pairs that the paper "
        f"{'tells apart' if title in DEVIATIONS else 'orders'}, {plus} are in the published order, "
        f"{minus} in the opposite one and {unclear} unclear.",
        "",
    ]
    return lines


def _not_compared(title: str, better: str, worse: str) -> str:
    """The mark of a pair whose published order says nothing of these methods, else nothing."""
    if {better, worse} & set(OTHERWISE.get(title, ())):
        return OTHER
    if title not in DEVIATIONS:
        return ""
    difference = PUBLISHED[title][better] - PUBLISHED[title][worse]
    errors = [
        DEVIATIONS[title][name] / sqrt(TRIALS_OF_CRD if name in OF_CRD else TRIALS)
        for name in (better, worse)
    ]
    return TIED if difference < 2 * hypot(*errors) else ""


def _mark(better: Mapping[str, float], worse: Mapping[str, float], deviation: float | None) -> str:
    """Of two methods: whether they differ by two standard errors, and in two seeds at least.

    Args:
        better, worse: By seed; those that both have are compared.
        deviation: Of one seed, pooled over all methods; None where each has one.
    """
    differences = [better[seed] - worse[seed] for seed in better.keys() & worse.keys()]
    signs = {each > 0 for each in differences}
    if deviation is None or len(differences) < 2 or len(signs) != 1:
        return "·"
    difference = mean(differences)
    if abs(difference) < 2 * deviation * sqrt(2 / len(differences)):
        return "·"
    return "+" if difference > 0 else "-"


def _plot(found: Mapping[str, Any], costs: Mapping[str, Any]) -> Plot | None:
    """Accuracy by cost, a panel a teacher; None where no cost is known."""
    panels = [
        Panel(
            f"methods-{name}",
            f"{name} teacher ({of['accuracy']:.1f} %)",
            f"Accuracy by cost, {name} teacher",
            "Points; the table has the same numbers.",
            PLAIN_HEIGHT + 9,
            partial(_draw, scores=of["methods"], cost=costs[name]),
        )
        for name, of in found.items()
        if name in costs
    ]
    if not panels:
        return None
    return Plot("Top-1 over plain, by the cost of a step", panels, {}, shared=())


def _draw(axis: Axes, *, scores: Scores, cost: Mapping[str, Any]) -> None:
    axis.axhline(0, color="#999999", linewidth=1)
    names = []
    for name in scores:
        gain = _gain(scores, name)
        if name == PLAIN or gain is None or name not in cost["seconds"]:
            continue
        ratio = cost["seconds"][name] / cost["seconds"][PLAIN]
        axis.plot([ratio], [gain], "o", color="#0b6e99", markersize=4)
        names.append(axis.text(ratio, gain, name, fontsize=7))
    axis.set_xscale("log")
    ticks = [each for each in (1, 1.5, 2, 3, 5, 7, 10, 20, 40) if each <= 1.1 * axis.get_xlim()[1]]
    axis.set_xticks(ticks, [f"{each:g}" for each in ticks])
    axis.minorticks_off()
    axis.set(xlabel="time of a step over plain", ylabel="top-1 over plain, points")
    tidy(axis)
    # By iterations: its own limit is a second, and the figure another on another machine.
    adjust_text(
        names,
        ax=axis,
        force_text=(1.0, 0.5),
        force_explode=(0.3, 0.6),
        iter_lim=2000,
        arrowprops=dict(arrowstyle="-", color="#999999", linewidth=0.5),
    )
