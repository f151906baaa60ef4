"""Paired bootstrap over images of COCO's figures, from the matches of one evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray

from mmkd.evaluation.coco import IOUS, RECALLS, Evaluation, Matches, Metric

__all__ = ["Bootstrap", "bootstrap", "image_weights", "weighted_metrics"]

# Numbers that one temporary array holds: larger ones leave the processor's cache.
_CHUNK = 1_000_000


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """What the evaluations would have said on other images of the same kind.

    Args:
        metrics: ``[evaluations, resamples, metrics]`` in percent, the metrics in the settings'
            order; nan where a resample has no object.
        classes: ``[evaluations, resamples, categories]``, average precision likewise.
    """

    metrics: NDArray[np.float64]
    classes: NDArray[np.float64]


def image_weights(num_images: int, resamples: int, seed: int) -> NDArray[np.uint16]:
    """How often each image is drawn, ``[resamples, images]``; every row sums to ``num_images``."""
    generator = np.random.default_rng(seed)
    even = np.full(num_images, 1 / num_images)
    return generator.multinomial(num_images, even, size=resamples).astype(np.uint16)


def bootstrap(
    evaluations: Sequence[Evaluation],
    resamples: int,
    seed: int = 0,
    *,
    workers: int = 1,
    advance: Callable[[int], None] = lambda number: None,
) -> Bootstrap:
    """Draws images with replacement, and computes all figures on each draw.

    Every evaluation sees the same draws, so that differences between them are paired (Efron and
    Tibshirani, *An Introduction to the Bootstrap*, chapter 8). An image that is drawn k times
    counts k times; nothing is matched again, since COCO matches within an image.

    Args:
        evaluations: Of the same annotations and settings, with matches.
        resamples: Number of draws.
        seed: Of the draws. The outcome depends on nothing else.
        workers: Processes.
        advance: Called with the number of detections for which all draws are done, in parts that
            add up to that of all evaluations.

    Raises:
        ValueError: Evaluations of different annotations or settings, or without matches.
    """
    first = evaluations[0]
    for each in evaluations:
        if each.annotations is not first.annotations or each.settings != first.settings:
            raise ValueError("a paired bootstrap needs the same annotations and settings")
        if not each.matches:
            raise ValueError("a bootstrap needs matches, which the backend 'faster' does not keep")
    weights = image_weights(len(first.annotations.image_ids), resamples, seed)
    metrics = first.settings.metrics
    limits = first.settings.max_detections
    places = [(run, k) for run, each in enumerate(evaluations) for k in range(len(each.matches))]
    samples = np.empty((len(evaluations), len(first.matches), resamples, len(metrics)))
    # The largest categories first, so that no process is left with one of them at the end.
    places.sort(key=lambda place: -len(evaluations[place[0]].matches[place[1]].image))
    parallel = Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1)
    jobs = (
        delayed(_resampled)(
            place, evaluations[place[0]].matches[place[1]], weights, metrics, limits
        )
        for place in places
    )
    for place, values in parallel(jobs):
        samples[place] = values
        advance(len(evaluations[place[0]].matches[place[1]].image))
    return Bootstrap(_mean_of_defined(samples), np.moveaxis(samples[..., 0], 1, 2))


def _mean_of_defined(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the categories, ``[evaluations, categories, resamples, metrics]``."""
    defined = ~np.isnan(samples)
    counts = defined.sum(1)
    total = np.where(defined, samples, 0).sum(1)
    return np.divide(total, counts, out=np.full(total.shape, np.nan), where=counts > 0)


def _resampled(
    place: tuple[int, int],
    matches: Matches,
    weights: NDArray[np.uint16],
    metrics: Sequence[Metric],
    limits: Sequence[int],
) -> tuple[tuple[int, int], NDArray[np.float64]]:
    rows = max(1, _CHUNK // max(1, len(matches.image)))
    parts = [
        weighted_metrics(matches, weights[start : start + rows].astype(float), metrics, limits)
        for start in range(0, len(weights), rows)
    ]
    return place, np.concatenate(parts)


def weighted_metrics(
    matches: Matches,
    weights: NDArray[np.float64],
    metrics: Sequence[Metric],
    limits: Sequence[int],
) -> NDArray[np.float64]:
    """One category's figures where every image counts as often as its weight says.

    Args:
        matches: Of the category.
        weights: ``[draws, images]``.
        metrics: Which figures.
        limits: The settings' ``max_detections``.

    Returns:
        ``[draws, metrics]`` in percent, nan where a draw has no object.
    """
    of_detections = weights[:, matches.image]
    # Two sums of products that are integers: exact, so that equal draws give equal figures.
    objects = weights @ matches.objects.T.astype(float)
    precision = {
        area: _average_precision(matches, of_detections, objects[:, area], area)
        for area in {metric.area for metric in metrics if metric.kind == "AP"}
    }
    columns = []
    for metric in metrics:
        if metric.kind == "AP":
            values = precision[metric.area]
            column = values.mean(1) if metric.iou is None else values[:, metric.iou]
        else:
            found = matches.true[metric.area] & (matches.rank < limits[metric.limit])
            hits = found.sum(0)
            kept = np.flatnonzero(hits)
            total = of_detections[:, kept] @ hits[kept].astype(float)
            column = _divide(total, objects[:, metric.area] * len(IOUS))
        columns.append(100 * column)
    return np.stack(columns, axis=1)


def _divide(total: NDArray[np.float64], count: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _average_precision(
    matches: Matches, weights: NDArray[np.float64], objects: NDArray[np.float64], area: int
) -> NDArray[np.float64]:
    """``[draws, ious]``. Precision can rise only at true positives, so nothing else is looked at:
    the number of detections that count is summed once, and corrected where matching changes it."""
    inside = matches.inside[area]
    counted = np.cumsum(weights * inside, axis=1)
    result = np.full((len(weights), len(IOUS)), np.nan)
    drawn = objects > 0
    for index in range(len(IOUS)):
        true = matches.true[area, index]
        change = ~matches.ignored[area, index] ^ inside
        looked_at = np.flatnonzero(true | change)
        own = weights[:, looked_at]
        correction = np.where(inside[looked_at], -1, 1) * change[looked_at]
        total = counted[:, looked_at] + np.cumsum(own * correction, axis=1)
        is_true = true[looked_at]
        found = np.cumsum(own[:, is_true], axis=1)
        result[drawn, index] = _interpolated(found[drawn], total[:, is_true][drawn], objects[drawn])
    return result


def _interpolated(
    found: NDArray[np.float64], counted: NDArray[np.float64], objects: NDArray[np.float64]
) -> NDArray[np.float64]:
    """COCO's mean over 101 recalls of the best precision at that recall or a higher one.

    Args:
        found: ``[draws, n]``, objects found up to each true positive.
        counted: ``[draws, n]``, detections that count up to there.
        objects: ``[draws]``, all objects.
    """
    # As pycocotools: true positives over themselves, false ones and the smallest step.
    precision = found / (found + (counted - found) + np.spacing(1))
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    reached = np.searchsorted(RECALLS, found / objects[:, None], side="right")
    # A true positive that is not drawn does not start the curve: recall 0 belongs to the first
    # that is, and the best precision from the front on is the same for both.
    steps = np.diff(reached, axis=1, prepend=0)
    return (best * steps).sum(1) / len(RECALLS)
