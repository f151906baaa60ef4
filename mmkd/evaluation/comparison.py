"""Runs side by side: COCO's figures, what is more than noise, and which errors are left."""

from __future__ import annotations

import math
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

__all__ = [
    "Comparison",
    "Estimate",
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
# Ends of the interval of 95%.
_ENDS = (2.5, 97.5)


@dataclass(frozen=True)
class Run:
    """Detections to be compared.

    Args:
        name: Runs of one name are seeds of the same thing.
        detections: Of the run.
        parameters: Of the network, where known.
        step_seconds: Of a training step, where known.
    """

    name: str
    detections: Detections
    parameters: int | None = None
    step_seconds: float | None = None


@dataclass(frozen=True)
class Estimate:
    """A figure with its bootstrapped 95% interval over images; the ends are nan without one."""

    value: float
    low: float
    high: float

    @property
    def has_interval(self) -> bool:
        """Whether there is an interval."""
        return not math.isnan(self.low)

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero; not without one."""
        return self.low > 0 or self.high < 0


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

    Differences get intervals from a paired bootstrap over images
    (:mod:`mmkd.evaluation.bootstrap`): they say what other images would have given, not what other
    seeds would; the spread of the seeds stands beside them. Seeds are pooled by their mean, within
    each resample. Single figures get no interval: on few images COCO's average precision is too
    high by more than an interval tells, though by much the same for every run
    (``benchmarks/bootstrap_coverage.py``).

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
    pooled = {name: _Pooled.of(evaluations, samples, indices) for name, indices in members.items()}
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


@dataclass(frozen=True, eq=False)
class _Pooled:
    """The seeds of one name: their figures, and the resamples of their mean."""

    values: dict[Part, list[dict[str, float]]]
    samples: dict[Part, NDArray[np.float64]] | None

    @classmethod
    def of(
        cls, evaluations: Sequence[Evaluation], samples: Bootstrap | None, members: Sequence[int]
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
        )

    def names(self, part: Part) -> list[str]:
        return list(self.values[part][0])

    def mean(self, part: Part, name: str) -> float:
        return fmean(values[name] for values in self.values[part])

    def draws(self, part: Part, name: str) -> NDArray[np.float64] | None:
        if self.samples is None:
            return None
        return self.samples[part][:, self.names(part).index(name)]

    def scores(self, part: Part) -> dict[str, Score]:
        scores = {}
        for name in self.names(part):
            values = [each[name] for each in self.values[part]]
            scores[name] = Score(
                mean=fmean(values),
                spread=float(np.std(values, ddof=1)) if len(values) > 1 else None,
                values=values,
            )
        return scores


def _interval(draws: NDArray[np.float64]) -> tuple[float, float]:
    """Percentile interval (Efron and Tibshirani, chapter 13); draws without a value do not count.

    Where the value is undefined as a whole, so is the interval.
    """
    defined = draws[~np.isnan(draws)]
    if not defined.size:
        return float("nan"), float("nan")
    low, high = np.percentile(defined, _ENDS)
    return float(low), float(high)


def _differences(
    pooled: Mapping[str, _Pooled], name: str, baseline: str | None, part: Part
) -> dict[str, Estimate]:
    if baseline is None or name == baseline:
        return {}
    own, base = pooled[name], pooled[baseline]
    differences = {}
    for key in own.names(part):
        mine, others = own.draws(part, key), base.draws(part, key)
        ends = (float("nan"),) * 2 if mine is None or others is None else _interval(mine - others)
        differences[key] = Estimate(own.mean(part, key) - base.mean(part, key), *ends)
    return differences


def _lead_closed(
    pooled: Mapping[str, _Pooled], name: str, baseline: str | None, teacher: str | None
) -> Estimate | None:
    """None where there is no lead to close, or none that is clear: of a lead that the teacher has
    in some of the resamples alone, a share says nothing."""
    if baseline is None or teacher is None or name in (baseline, teacher):
        return None
    key = "mAP"
    own, base, best = (pooled[each] for each in (name, baseline, teacher))
    floor = base.mean("metrics", key)
    lead = best.mean("metrics", key) - floor
    if not lead > 0:
        return None
    value = (own.mean("metrics", key) - floor) / lead
    mine, others, top = (each.draws("metrics", key) for each in (own, base, best))
    if mine is None or others is None or top is None:
        return Estimate(value, float("nan"), float("nan"))
    leads = top - others
    if np.mean(leads <= 0) > _ENDS[0] / 100:
        return None
    kept = leads > 0
    return Estimate(value, *_interval((mine - others)[kept] / leads[kept]))
