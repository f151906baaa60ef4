"""Runs side by side: values by hand, pooled seeds, intervals by the definition."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pytest
from scipy.stats import t

from helpers import scenes
from mmkd.errors import InputError
from mmkd.evaluation.bootstrap import bootstrap
from mmkd.evaluation.coco import evaluate
from mmkd.evaluation.coco_files import Annotations, read_annotations, read_detections
from mmkd.evaluation.comparison import Run, compare_runs
from mmkd.evaluation.detection_errors import break_down_errors

NOISE = {"plain": 0.3, "distilled": 0.2, "teacher": 0.05}


@pytest.fixture(scope="module")
def annotations(tmp_path_factory: pytest.TempPathFactory) -> Annotations:
    folder = tmp_path_factory.mktemp("comparison")
    return read_annotations(scenes.write(folder, "truth.json", scenes.truth_of(0, 30)))


@pytest.fixture(scope="module")
def runs(annotations: Annotations, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder, truth = tmp_path_factory.mktemp("runs"), scenes.truth_of(0, 30)
    runs = []
    for index, (name, seed) in enumerate(
        [("plain", 0), ("plain", 1), ("distilled", 0), ("distilled", 1), ("teacher", 0)]
    ):
        found = scenes.found_in(truth, index, noise=NOISE[name])
        file = scenes.write(folder, f"{name}{seed}.json", found)
        runs.append(Run(name, read_detections(file, annotations), 1000 * (index + 1), 0.5 + index))
    return runs


def test_groups_pool_their_seeds(annotations: Annotations, runs: list[Run]) -> None:
    comparison = compare_runs(annotations, runs, resamples=0)
    assert [(g.name, g.role) for g in comparison.groups] == [
        ("plain", "baseline"),
        ("distilled", "run"),
        ("teacher", "teacher"),
    ]
    by_run = [evaluate(annotations, run.detections) for run in runs]
    for name, members in (("plain", [0, 1]), ("distilled", [2, 3]), ("teacher", [4])):
        group = comparison.group(name)
        for metric, score in group.metrics.items():
            values = [by_run[index].metrics[metric] for index in members]
            assert score.values == pytest.approx(values, nan_ok=True)
            assert score.mean == pytest.approx(fmean(values), nan_ok=True)
            assert score.spread == (pytest.approx(stdev(values)) if len(values) > 1 else None)
        for label, score in group.classes.items():
            expected = fmean(by_run[index].class_ap[label] for index in members)
            assert score.mean == pytest.approx(expected, nan_ok=True)
        errors = [break_down_errors(annotations, runs[index].detections) for index in members]
        for kind, (count, cost) in group.errors.items():
            assert count == fmean(error.counts[kind] for error in errors)
            assert cost == pytest.approx(fmean(error.cost[kind] for error in errors))
    assert comparison.group("plain").step_seconds == 1.0
    assert comparison.group("distilled").parameters == 3000


def test_differences_and_the_share_of_the_lead(annotations: Annotations, runs: list[Run]) -> None:
    comparison = compare_runs(annotations, runs, resamples=0)
    plain, distilled, teacher = (comparison.group(n).metrics["mAP"].mean for n in NOISE)
    assert plain < distilled < teacher  # as their noise says
    gain = comparison.group("distilled").differences["mAP"]
    assert gain.value == pytest.approx(distilled - plain)
    assert math.isnan(gain.low) and math.isnan(gain.high)
    lead = comparison.group("distilled").lead_closed
    assert lead is not None
    assert lead.value == pytest.approx((distilled - plain) / (teacher - plain))
    assert comparison.group("plain").differences == {}
    assert comparison.group("plain").lead_closed is comparison.group("teacher").lead_closed is None


def test_intervals_of_one_seed_are_percentiles_of_the_paired_draws(
    annotations: Annotations, runs: list[Run]
) -> None:
    single = [runs[0], runs[2], runs[4]]
    comparison = compare_runs(annotations, single, resamples=200, seed=3)
    draws = bootstrap([evaluate(annotations, run.detections) for run in single], 200, 3).metrics
    plain, distilled, teacher = draws[:, :, 0]
    estimate = comparison.group("distilled").differences["mAP"]
    ends = np.percentile(distilled - plain, (2.5, 97.5))
    assert (estimate.low, estimate.high) == pytest.approx(tuple(ends))
    assert estimate.low < estimate.value < estimate.high
    assert estimate.over == comparison.intervals_over == "images" and not estimate.seeds
    lead = comparison.group("distilled").lead_closed
    ends = np.percentile((distilled - plain) / (teacher - plain), (2.5, 97.5))
    assert lead is not None and (lead.low, lead.high) == pytest.approx(tuple(ends))


def test_intervals_of_several_seeds_hold_for_both(
    annotations: Annotations, runs: list[Run]
) -> None:
    comparison = compare_runs(annotations, runs, resamples=200, seed=3)
    draws = bootstrap([evaluate(annotations, run.detections) for run in runs], 200, 3).metrics
    maps = draws[:, :, 0]
    values = [evaluate(annotations, run.detections).metrics["mAP"] for run in runs]
    gains = (values[2] - values[0], values[3] - values[1])
    estimate = comparison.group("distilled").differences["mAP"]
    assert estimate.seeds == pytest.approx(gains) and estimate.over == "seeds and images"
    low, high = np.percentile(maps[2:4].mean(0) - maps[:2].mean(0), (2.5, 97.5))
    of_seeds = float(ttest_ci(gains))
    value = fmean(gains)
    assert estimate.low == pytest.approx(value - math.hypot(value - low, of_seeds))
    assert estimate.high == pytest.approx(value + math.hypot(high - value, of_seeds))
    # The teacher is one network: seeds move the baseline alone.
    teacher = comparison.group("teacher").differences["mAP"]
    low, high = np.percentile(maps[4] - maps[:2].mean(0), (2.5, 97.5))
    of_plain = float(ttest_ci(values[:2]))
    assert teacher.low == pytest.approx(teacher.value - math.hypot(teacher.value - low, of_plain))
    lead = comparison.group("distilled").lead_closed
    assert (lead is None) == (teacher.low <= 0)


def ttest_ci(values: Sequence[float]) -> float:
    """Half of the 95% interval of a mean, by Student's t."""
    return t.ppf(0.975, len(values) - 1) * stdev(values) / math.sqrt(len(values))


def test_the_share_of_the_lead_by_finite_differences_of_the_seeds(
    annotations: Annotations, runs: list[Run]
) -> None:
    # Seeds close to each other, so that the lead is clear.
    again = [runs[0], replace(runs[0], seed=1), runs[2], runs[3], runs[4]]
    comparison = compare_runs(annotations, again, resamples=200, seed=3)
    values = [evaluate(annotations, run.detections).metrics["mAP"] for run in again]
    lead = comparison.group("distilled").lead_closed

    def share_of(first: float, second: float, third: float, fourth: float) -> float:
        floor = (first + second) / 2
        return ((third + fourth) / 2 - floor) / (values[4] - floor)

    assert lead is not None and lead.value == pytest.approx(share_of(*values[:4]))
    step = 1e-4
    slopes = [
        (share_of(*(v + step * (i == k) for i, v in enumerate(values[:4]))) - lead.value) / step
        for k in range(4)
    ]
    # A seed's own part of the share: what its two runs add, to first order.
    parts = [2 * (slopes[k] * values[k] + slopes[k + 2] * values[k + 2]) for k in (0, 1)]
    of_seeds = ttest_ci(parts)
    draws = bootstrap([evaluate(annotations, run.detections) for run in again], 200, 3).metrics
    maps = draws[..., 0]
    floor = maps[:2].mean(0)
    low, high = np.percentile((maps[2:4].mean(0) - floor) / (maps[4] - floor), (2.5, 97.5))
    below, above = (math.hypot(end - lead.value, of_seeds) for end in (low, high))
    assert lead.low == pytest.approx(lead.value - below, rel=1e-4)
    assert lead.high == pytest.approx(lead.value + above, rel=1e-4)


def test_seeds_are_paired_by_their_number(annotations: Annotations, runs: list[Run]) -> None:
    known = [replace(run, seed=seed) for run, seed in zip(runs, (5, 7, 7, 5, 5), strict=True)]
    values = [evaluate(annotations, run.detections).metrics["mAP"] for run in runs]
    found = compare_runs(annotations, known, resamples=0).group("distilled").differences["mAP"]
    assert found.seeds == pytest.approx((values[3] - values[0], values[2] - values[1]))
    # Of numbers that are not known of all, the order decides; others are no pairs.
    for seeds, are_paired in (
        ((5, 7, 7, None, 5), True),
        ((5, 7, 7, 6, 5), False),
        ((5, 5, 5, 7, 5), False),
        ((5, 7, 5, 5, 5), False),
    ):
        other = [replace(run, seed=seed) for run, seed in zip(runs, seeds, strict=True)]
        found = compare_runs(annotations, other, resamples=20).group("distilled")
        change = found.differences["mAP"]
        in_order = (values[2] - values[0], values[3] - values[1])
        assert change.seeds == (pytest.approx(in_order) if are_paired else ())
        assert change.over == "seeds and images"


def test_unequal_numbers_of_seeds(annotations: Annotations, runs: list[Run]) -> None:
    more = [*runs, replace(runs[3], name="alone")]
    comparison = compare_runs(annotations, [*more, replace(runs[2], name="plain")], resamples=50)
    distilled, alone = (comparison.group(n).differences["mAP"] for n in ("distilled", "alone"))
    assert distilled.over == "seeds and images" and not distilled.seeds
    # Of one student against three, other seeds are unknown.
    assert alone.over == "images"
    assert comparison.intervals_over == "images, and over seeds where runs have several"


def test_no_lead_to_close(annotations: Annotations, runs: list[Run]) -> None:
    # The teacher is the worst here.
    worse = [Run({"plain": "teacher", "teacher": "plain"}.get(r.name, r.name), r.detections)
             for r in runs]  # fmt: skip
    comparison = compare_runs(annotations, worse, resamples=20)
    assert comparison.group("distilled").lead_closed is None


def test_a_lead_within_the_noise_has_no_share(annotations: Annotations, runs: list[Run]) -> None:
    plain, distilled = runs[0].detections, runs[2].detections
    scores = {name: evaluate(annotations, found).metrics["mAP"]
              for name, found in (("plain", plain), ("same", runs[1].detections))}  # fmt: skip
    low, high = sorted(scores, key=lambda name: scores[name])
    both = {"plain": plain, "same": runs[1].detections}
    comparison = compare_runs(
        annotations,
        [Run("plain", both[low]), Run("distilled", distilled), Run("teacher", both[high])],
        resamples=100,
    )
    assert comparison.group("distilled").lead_closed is None


def test_roles_by_name(annotations: Annotations, runs: list[Run]) -> None:
    renamed = [Run(f"{run.name}s", run.detections) for run in runs]
    comparison = compare_runs(annotations, renamed, resamples=0)
    assert comparison.baseline is None and comparison.teacher is None
    assert all(group.differences == {} for group in comparison.groups)
    assert compare_runs(annotations, renamed, resamples=5).resamples == 0
    named = compare_runs(annotations, renamed, resamples=0, baseline="plains", teacher="teachers")
    assert [group.role for group in named.groups] == ["baseline", "run", "teacher"]
    with pytest.raises(KeyError):
        named.group("plain")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(baseline="other"), "baseline.*plain, distilled, teacher.*'other'"),
        (dict(teacher="other"), "teacher.*'other'"),
        (dict(teacher="plain"), "both 'plain'"),
        (dict(resamples=-1), "0 or more"),
        (dict(backend="faster", resamples=10), "no matches"),
    ],
)
def test_options_that_cannot_be(
    annotations: Annotations, runs: list[Run], options: dict, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        compare_runs(annotations, runs, **options)


def test_no_runs(annotations: Annotations) -> None:
    with pytest.raises(InputError, match="at least one run"):
        compare_runs(annotations, [])


def test_empty_detections_score_0(annotations: Annotations, tmp_path: Path) -> None:
    empty = read_detections(scenes.write(tmp_path, "empty.json", []), annotations)
    comparison = compare_runs(annotations, [Run("plain", empty), Run("run", empty)], resamples=10)
    group = comparison.group("run")
    assert group.metrics["mAP"].mean == 0
    assert group.differences["mAP"].value == group.differences["mAP"].high == 0
    assert group.errors["missed"][0] == np.count_nonzero(~annotations.crowd)
