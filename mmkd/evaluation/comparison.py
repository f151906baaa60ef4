"""Runs side by side: COCO's figures, what is more than noise, and which errors are left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Literal

import numpy as np
from joblib import cpu_count
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mmkd.errors import InputError
from mmkd.evaluation.bootstrap import Bootstrap, bootstrap
from mmkd.evaluation.coco import Backend, CocoSettings, Evaluation, evaluate
from mmkd.evaluation.coco_files import Annotations, Detections
from mmkd.evaluation.detection_errors import ERROR_TYPES, break_down_errors
from mmkd.evaluation.intervals import Estimate, SeedMargin, interval_of, no_interval, seed_margin

__all__ = [
    "Comparison",
    "GroupResult",
    "Role",
    "Run",
    "Score",
    "compare_runs",
    "find_roles",
    "workers_for",
]

Role = Literal["baseline", "teacher", "run"]
# Names that need no option: those of our own runs.
BASELINE, DISTILLED, TEACHER = "plain", "distilled", "teacher"
_FEW = 50_000


@dataclass(frozen=True)
class Run:
    """Detections to be compared.

    Args:
        name: Runs of one name are seeds of the same thing.
        detections: Of the run.
        parameters: Of the network, where known.
        step_seconds: Of a training step, where known.
        seed: Where known: runs of two names are paired by it.
    """

    name: str
    detections: Detections
    parameters: int | None = None
    step_seconds: float | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Score:
    """A metric in percent.

    Args:
        mean: Over the seeds.
        spread: Standard deviation of the seeds; None with one.
        values: One a seed.
    """

    mean: float
    spread: float | None
    values: list[float]


@dataclass(frozen=True, eq=False)
class GroupResult:
    """Runs of one name.

    Args:
        name: In tables.
        role: What it is compared as.
        evaluations: One a seed.
        metrics: By name.
        classes: Average precision by category.
        differences: To the baseline's, in points, by metric; empty for the baseline itself and
            where there is none.
        class_differences: Likewise, of the average precision by category.
        lead_closed: Share of the teacher's lead over the baseline in mAP, 1 being all of it.
        errors: By type: mean number, and points of AP50 that correcting them would add.
        parameters: Of the network, where known.
        step_seconds: Of a training step, where known; the mean.
    """

    name: str
    role: Role
    evaluations: list[Evaluation]
    metrics: dict[str, Score]
    classes: dict[str, Score]
    differences: dict[str, Estimate]
    class_differences: dict[str, Estimate]
    lead_closed: Estimate | None
    errors: dict[str, tuple[float, float]]
    parameters: int | None
    step_seconds: float | None

    @property
    def mean_precision(self) -> NDArray[np.float64]:
        """``[ious, recalls]`` in percent: the mean over classes with objects, then over seeds."""
        seeds = [
            np.ma.masked_less(each.precision[..., 0, -1], 0).mean(axis=-1).filled(np.nan)
            for each in self.evaluations
        ]
        return 100 * np.mean(seeds, axis=0)


@dataclass(frozen=True, eq=False)
class Comparison:
    """What was compared, and what came out.

    Args:
        annotations: What was to be found.
        settings: Areas and numbers of detections.
        groups: In the order of the runs.
        baseline: Name of the group to which the others are compared, if any.
        teacher: Name of the teacher's group, if any.
        resamples: Of the bootstrap; 0 without one, as where nothing is compared.
        seed: Of the bootstrap.
    """

    annotations: Annotations
    settings: CocoSettings
    groups: list[GroupResult]
    baseline: str | None
    teacher: str | None
    resamples: int
    seed: int

    @property
    def intervals_over(self) -> str:
        """What the intervals of the differences hold for."""
        found = {g.differences["mAP"].over for g in self.groups if g.differences}
        return found.pop() if len(found) == 1 else "images, and over seeds where runs have several"

    def group(self, name: str) -> GroupResult:
        """The group of this name.

        Raises:
            KeyError: There is none.
        """
        for each in self.groups:
            if each.name == name:
                return each
        raise KeyError(name)


def compare_runs(
    annotations: Annotations,
    runs: Sequence[Run],
    *,
    settings: CocoSettings | None = None,
    baseline: str | None = None,
    teacher: str | None = None,
    resamples: int = 1000,
    seed: int = 0,
    backend: Backend = "pycocotools",
    workers: int = 1,
    progress: bool = False,
) -> Comparison:
    """Evaluates runs and compares them with a baseline.

    Differences get 95% intervals. With one seed they say what other images would have given, by a
    paired bootstrap over images (:mod:`mmkd.evaluation.bootstrap`); with several, what other images
    and other seeds would have (:mod:`mmkd.evaluation.intervals`). Seeds are pooled by their mean,
    within each resample; those of two names are paired by their number, or where that is not
    known of all in the order of the runs, and are not where there are others of one. Single
    figures get no interval: on few images COCO's average precision is too high by more than an
    interval tells, though by much the same for every run (``benchmarks/bootstrap_coverage.py``).

    Args:
        annotations: What was to be found.
        runs: What was found.
        settings: COCO's own by default.
        baseline: Name of the runs to compare the others to; by default ``plain`` where there are
            such; an empty name for none.
        teacher: Name of the teacher's runs; by default ``teacher``, likewise.
        resamples: Of the bootstrap, made where there is a baseline; 0 leaves the intervals out.
        seed: Of the bootstrap.
        backend: See :func:`mmkd.evaluation.coco.evaluate`.
        workers: Processes; the outcome is the same with any number.
        progress: Show bars on the terminal's error stream.

    Raises:
        InputError: No runs, a baseline or teacher that is not among them, or intervals from a
            backend that keeps no matches.
    """
    if not runs:
        raise InputError("expected detections of at least one run, got none")
    if resamples < 0:
        raise InputError(f"resamples: expected 0 or more, got {resamples}")
    if backend == "faster" and resamples:
        raise InputError(
            "backend 'faster' keeps no matches, from which the bootstrap is made: give --resamples "
            "0, or take 'pycocotools'"
        )
    names = list(dict.fromkeys(run.name for run in runs))
    baseline, teacher = find_roles(names, baseline, teacher)
    settings = settings or CocoSettings()
    with _bars(progress) as bars:
        evaluating = bars.add_task("evaluating", total=sum(len(run.detections) for run in runs))
        evaluations, errors = [], []
        for run in runs:
            found = run.detections
            evaluations.append(
                evaluate(annotations, found, settings, backend=backend, workers=workers)
            )
            limit = settings.max_detections[-1]
            errors.append(break_down_errors(annotations, found, max_detections=limit))
            bars.advance(evaluating, len(found))
        samples = None
        resamples = resamples if baseline is not None and len(names) > 1 else 0
        if resamples:
            total = sum(len(match.image) for each in evaluations for match in each.matches)
            samples = bootstrap(
                evaluations,
                resamples,
                seed,
                workers=workers,
                advance=partial(bars.advance, bars.add_task(f"{resamples} resamples", total=total)),
            )
    members = {name: [i for i, run in enumerate(runs) if run.name == name] for name in names}
    if baseline is not None:
        members = {name: _in_order(runs, each, members[baseline]) for name, each in members.items()}
    numbers = [run.seed for run in runs]
    pooled = {
        name: _Pooled.of(evaluations, samples, indices, numbers, is_one_network=name == teacher)
        for name, indices in members.items()
    }
    groups = [
        GroupResult(
            name=name,
            role="baseline" if name == baseline else "teacher" if name == teacher else "run",
            evaluations=[evaluations[i] for i in indices],
            metrics=pooled[name].scores("metrics"),
            classes=pooled[name].scores("classes"),
            differences=_differences(pooled, name, baseline, "metrics"),
            class_differences=_differences(pooled, name, baseline, "classes"),
            lead_closed=_lead_closed(pooled, name, baseline, teacher),
            errors={
                kind: (
                    fmean(errors[i].counts[kind] for i in indices),
                    fmean(errors[i].cost[kind] for i in indices),
                )
                for kind in ERROR_TYPES
            },
            parameters=next((runs[i].parameters for i in indices if runs[i].parameters), None),
            step_seconds=_mean_known([runs[i].step_seconds for i in indices]),
        )
        for name, indices in members.items()
    ]
    return Comparison(annotations, settings, groups, baseline, teacher, resamples, seed)


def workers_for(num_detections: int) -> int:
    """How many processes pay: starting them takes longer than evaluating small files in one."""
    return cpu_count() if num_detections > _FEW else 1


def find_roles(
    names: Sequence[str], baseline: str | None, teacher: str | None
) -> tuple[str | None, str | None]:
    """Which of the runs is the baseline, and which the teacher: ``plain`` and ``teacher``, where
    there are such and no others are named.

    Raises:
        InputError: One is named that is not among them, or one for both.
    """
    baseline = _role_name("baseline", baseline, BASELINE, names)
    teacher = _role_name("teacher", teacher, TEACHER, names)
    if baseline is not None and baseline == teacher:
        raise InputError(f"baseline and teacher are both {baseline!r}: name two different runs")
    return baseline, teacher


def _role_name(role: str, asked: str | None, default: str, names: Sequence[str]) -> str | None:
    if asked is None:
        return default if default in names else None
    if not asked:
        return None
    if asked not in names:
        raise InputError(f"{role}: expected one of the runs {', '.join(names)}; got {asked!r}")
    return asked


def _mean_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _bars(shown: bool) -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        # In a file they would leave empty lines.
        disable=not (shown and console.is_terminal),
    )


Part = Literal["metrics", "classes"]


def _in_order(runs: Sequence[Run], own: Sequence[int], base: Sequence[int]) -> list[int]:
    """A group's runs in the order of the baseline's seeds, where these are the same."""
    by_seed = {runs[index].seed: index for index in own}
    seeds = [runs[index].seed for index in base]
    are_same = len(seeds) == len(own) == len(by_seed) and set(seeds) == set(by_seed)
    return [by_seed[seed] for seed in seeds] if are_same and None not in seeds else list(own)


@dataclass(frozen=True, eq=False)
class _Pooled:
    """The seeds of one name: their figures, and the resamples of their mean."""

    seeds: dict[Part, list[dict[str, float]]]
    samples: dict[Part, NDArray[np.float64]] | None
    numbers: list[int | None]
    is_one_network: bool

    @classmethod
    def of(
        cls,
        evaluations: Sequence[Evaluation],
        samples: Bootstrap | None,
        members: Sequence[int],
        numbers: Sequence[int | None],
        *,
        is_one_network: bool,
    ) -> _Pooled:
        own = [evaluations[i] for i in members]
        return cls(
            {"metrics": [e.metrics for e in own], "classes": [e.class_ap for e in own]},
            None
            if samples is None
            else {
                "metrics": samples.metrics[members].mean(0),
                "classes": samples.classes[members].mean(0),
            },
            [numbers[i] for i in members],
            is_one_network and len(own) == 1,
        )

    def names(self, part: Part) -> list[str]:
        return list(self.seeds[part][0])

    def values(self, part: Part, name: str) -> list[float]:
        return [values[name] for values in self.seeds[part]]

    def mean(self, part: Part, name: str) -> float:
        return fmean(self.values(part, name))

    def draws(self, part: Part, name: str) -> NDArray[np.float64]:
        assert self.samples is not None
        return self.samples[part][:, self.names(part).index(name)]

    def scores(self, part: Part) -> dict[str, Score]:
        scores = {}
        for name in self.names(part):
            values = self.values(part, name)
            scores[name] = Score(
                mean=fmean(values),
                spread=float(np.std(values, ddof=1)) if len(values) > 1 else None,
                values=values,
            )
        return scores

    def margin(self, own: Sequence[float], base: Sequence[float], of: _Pooled) -> SeedMargin:
        """Of a difference between values of these seeds and of a baseline's, ``of``."""
        is_one = self.is_one_network
        are_others = self.numbers != of.numbers and None not in (*self.numbers, *of.numbers)
        paired = len(own) == len(base) and not is_one and not are_others
        return seed_margin(own, base, paired=paired, is_one_network=is_one)


def _differences(
    pooled: Mapping[str, _Pooled], name: str, baseline: str | None, part: Part
) -> dict[str, Estimate]:
    if baseline is None or name == baseline:
        return {}
    own, base = pooled[name], pooled[baseline]
    return {key: _difference(own, base, part, key) for key in own.names(part)}


def _difference(own: _Pooled, base: _Pooled, part: Part, key: str) -> Estimate:
    value = own.mean(part, key) - base.mean(part, key)
    margin = own.margin(own.values(part, key), base.values(part, key), base)
    if own.samples is None:
        return no_interval(value, margin.seeds)
    return interval_of(value, own.draws(part, key) - base.draws(part, key), margin)


def _lead_closed(
    pooled: Mapping[str, _Pooled], name: str, baseline: str | None, teacher: str | None
) -> Estimate | None:
    """None where there is no lead to close, or none that is clear: of a lead that the teacher has
    in some of the resamples alone, a share says nothing."""
    if baseline is None or teacher is None or name in (baseline, teacher):
        return None
    own, base, best = (pooled[each] for each in (name, baseline, teacher))
    part: Part = "metrics"
    lead = _difference(best, base, part, "mAP")
    if not lead.value > 0 or (lead.has_interval and not lead.low > 0):
        return None
    value = (own.mean(part, "mAP") - base.mean(part, "mAP")) / lead.value
    if own.samples is None:
        return no_interval(value)
    # To first order, a seed's own points add to the share as 1 / lead, the baseline's take from it
    # as (1 - share) / lead: what they gain, the lead loses.
    margin = own.margin(
        [each / lead.value for each in own.values(part, "mAP")],
        [each * (1 - value) / lead.value for each in base.values(part, "mAP")],
        base,
    )
    floor = base.draws(part, "mAP")
    leads = best.draws(part, "mAP") - floor
    kept = leads > 0
    shares = (own.draws(part, "mAP") - floor)[kept] / leads[kept]
    found = interval_of(value, shares, margin)
    return Estimate(value, found.low, found.high, holds_for_seeds=found.holds_for_seeds)
