"""The bootstrap against evaluating copied images again, and against what is known to be true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import scenes
from mmkd.evaluation.bootstrap import bootstrap, image_weights, weighted_metrics
from mmkd.evaluation.coco import CocoSettings, Evaluation, evaluate
from mmkd.evaluation.coco_files import Annotations, Detections, read_annotations, read_detections
from mmkd.evaluation.comparison import Run, compare_runs

ATOL = 1e-9


def scene(folder: Path, seed: int) -> tuple[Annotations, Detections]:
    truth = scenes.truth_of(seed)
    annotations = read_annotations(scenes.write(folder, f"truth{seed}.json", truth))
    found = scenes.write(folder, f"found{seed}.json", scenes.found_in(truth, seed))
    return annotations, read_detections(found, annotations)


def drawn(source: Any, order: np.ndarray, **changes: Any) -> dict[str, Any]:
    """The columns of annotations or detections whose images are copied in this order."""
    rows = [np.flatnonzero(source.image == image) for image in order]
    kept = np.concatenate(rows)
    image = np.repeat(np.arange(len(order)), [len(each) for each in rows])
    names = ("category", "boxes", "areas", "crowd", "scores")
    return {
        "image": image,
        **{name: getattr(source, name)[kept] for name in names if hasattr(source, name)},
        **changes,
    }


def evaluated_again(evaluation: Evaluation, weights: np.ndarray) -> Evaluation:
    """Brute force: every image as often as it was drawn, evaluated by pycocotools."""
    truth, found = evaluation.annotations, evaluation.detections
    order = np.repeat(np.arange(len(truth.image_ids)), weights)
    copies = Annotations(
        file=truth.file,
        digest="",
        image_ids=list(range(len(order))),
        file_names=[""] * len(order),
        category_ids=truth.category_ids,
        category_names=truth.category_names,
        **drawn(truth, order),
    )
    detections = Detections(file=found.file, convention="", **drawn(found, order))
    return evaluate(copies, detections, evaluation.settings)


@pytest.mark.parametrize(
    "how", [CocoSettings(), CocoSettings(dict(all=(0, 1e10), low=(0, 900)), (2, 4))]
)
@pytest.mark.parametrize("seed", range(3))
def test_resamples_equal_a_new_evaluation(tmp_path: Path, seed: int, how: CocoSettings) -> None:
    evaluation = evaluate(*scene(tmp_path, seed), how)
    sampled = bootstrap([evaluation], 6, seed)
    for index, weights in enumerate(image_weights(12, 6, seed)):
        again = evaluated_again(evaluation, weights)
        np.testing.assert_allclose(
            sampled.metrics[0, index], list(again.metrics.values()), atol=ATOL, rtol=0
        )
        np.testing.assert_allclose(
            sampled.classes[0, index], list(again.class_ap.values()), atol=ATOL, rtol=0
        )


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    weights=st.lists(st.integers(0, 3), min_size=12, max_size=12).filter(any),
    seed=st.integers(0, 3),
)
def test_any_weights_equal_copies(
    tmp_path_factory: pytest.TempPathFactory, weights: list[int], seed: int
) -> None:
    evaluation = evaluate(*scene(tmp_path_factory.mktemp("scene"), seed))
    how = evaluation.settings
    own = np.array([weights], float)
    by_category = np.stack(
        [weighted_metrics(m, own, how.metrics, how.max_detections)[0] for m in evaluation.matches]
    )
    expected = list(evaluated_again(evaluation, np.array(weights)).metrics.values())
    for column, value in zip(by_category.T, expected, strict=True):
        defined = column[~np.isnan(column)]
        own_value = defined.mean() if defined.size else np.nan
        np.testing.assert_allclose(own_value, value, atol=ATOL, rtol=0)


def test_draws_have_as_many_images_and_repeat_with_the_seed() -> None:
    weights = image_weights(50, 400, 3)
    assert (weights.sum(1) == 50).all()
    np.testing.assert_array_equal(weights, image_weights(50, 400, 3))
    assert not np.array_equal(weights, image_weights(50, 400, 4))
    # Binomial: mean 1, variance 1 - 1/50.
    assert weights.mean() == 1
    assert weights.var() == pytest.approx(0.98, abs=0.03)


def test_processes_change_nothing_and_progress_adds_up(tmp_path: Path) -> None:
    evaluations = [evaluate(*scene(tmp_path, 1))] * 2
    steps: list[int] = []
    alone = bootstrap(evaluations, 30, 2, advance=steps.append)
    assert sum(steps) == 2 * len(evaluations[0].detections)
    shared = bootstrap(evaluations, 30, 2, workers=2)
    np.testing.assert_array_equal(alone.metrics, shared.metrics)
    np.testing.assert_array_equal(alone.classes, shared.classes)


def test_runs_share_their_draws(tmp_path: Path) -> None:
    annotations, detections = scene(tmp_path, 1)
    comparison = compare_runs(
        annotations, [Run("plain", detections), Run("same", detections)], resamples=50
    )
    differences = comparison.group("same").differences
    assert differences["mAP"].value == 0
    for estimate in differences.values():
        for value in (estimate.value, estimate.low, estimate.high):
            assert value == 0 or np.isnan(value)  # nan: a metric without objects


def test_evaluations_must_belong_together(tmp_path: Path) -> None:
    one, other = evaluate(*scene(tmp_path, 1)), evaluate(*scene(tmp_path, 2))
    with pytest.raises(ValueError, match="same annotations"):
        bootstrap([one, other], 5)
    with pytest.raises(ValueError, match="matches"):
        bootstrap([evaluate(*scene(tmp_path, 1), backend="faster")], 5)


def simulated(
    generator: np.random.Generator, num_images: int, rates: tuple[float, float]
) -> tuple[Annotations, list[Detections]]:
    """Images of one object each, which the runs find with these probabilities, and no false box.

    Then the precision is 1 up to the share of objects found, and AR at any IoU is that share. One
    difficulty an image makes the two runs agree more often than chance, as real detectors do.
    """
    boxes = np.tile([10.0, 10.0, 50.0, 50.0], (num_images, 1))
    each = np.arange(num_images)
    zeros = np.zeros(num_images, np.int64)
    annotations = Annotations(
        Path("simulated.json"), "", each.tolist(), [f"{k}.jpg" for k in each], [1], ["thing"],
        each, zeros, boxes, np.full(num_images, 2500.0), zeros.astype(bool),
    )  # fmt: skip
    difficulty = generator.random(num_images)
    runs = []
    for rate in rates:
        own = np.where(generator.random(num_images) < 0.5, difficulty, generator.random(num_images))
        found = own < rate
        scores = generator.random(found.sum())
        runs.append(
            Detections(Path("run.json"), each[found], zeros[found], boxes[found], scores, "")
        )
    return annotations, runs


def test_intervals_cover_the_true_difference() -> None:
    """Of 150 simulated pairs of runs, about 95% of the intervals hold the true difference."""
    generator = np.random.default_rng(0)
    trials, names = 150, ("mAP", "AR10")
    # Precision 1 up to recall 0.55 or 0.65: 56 or 66 of the 101 recalls.
    truth = np.array([100 * (66 - 56) / 101, 100 * (0.65 - 0.55)])
    settings = CocoSettings(dict(all=(0, 1e10)), (10,))
    columns = [[metric.name for metric in settings.metrics].index(name) for name in names]
    covered, excluded = np.zeros(2), np.zeros(2)
    for trial in range(trials):
        annotations, runs = simulated(generator, 120, (0.55, 0.65))
        evaluations = [evaluate(annotations, run, settings) for run in runs]
        plain, distilled = bootstrap(evaluations, 300, trial).metrics[..., columns]
        low, high = np.percentile(distilled - plain, (2.5, 97.5), axis=0)
        covered += (low <= truth) & (truth <= high)
        excluded += (low > 0) | (high < 0)
    # 95%, three standard deviations of a share of 150 trials (1.8 points) less and more.
    assert (covered / trials >= 0.896).all() and (covered / trials <= 0.999).all()
    # Nor are they so wide that they say nothing.
    assert (excluded / trials > 0.3).all()
