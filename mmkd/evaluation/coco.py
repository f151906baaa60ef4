"""COCO's average precision and recall of detection files, computed by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmkd.errors import InputError
from mmkd.evaluation.coco_files import (
    Annotations,
    Detections,
    read_annotations,
    read_detections,
)
from mmkd.extras import extra

__all__ = [
    "COCO_AREAS",
    "IOUS",
    "RECALLS",
    "Backend",
    "CocoScores",
    "CocoSettings",
    "Evaluation",
    "Matches",
    "Metric",
    "evaluate",
    "evaluate_detections",
]

Backend = Literal["pycocotools", "faster"]
# Written as pycocotools writes them: the last digits decide ties.
IOUS = np.linspace(0.5, 0.95, int(np.round((0.95 - 0.5) / 0.05)) + 1, endpoint=True)
RECALLS = np.linspace(0.0, 1.0, int(np.round(1.0 / 0.01)) + 1, endpoint=True)
COCO_AREAS = {
    "all": (0.0, 1e5**2),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e5**2),
}
# pycocotools keeps some 5 kB a detection while it matches; a part of this size takes 0.6 GB.
_DETECTIONS_A_PART = 125_000
# Of an image and class; what faster-coco-eval counts in has 32 bits.
_MOST_DETECTIONS = 10**9


@dataclass(frozen=True)
class Metric:
    """A figure of COCO's summary.

    Args:
        name: Such as ``mAP`` or ``AR_small``.
        kind: Average precision or average recall.
        area: Index into the settings' areas.
        iou: Index into :data:`IOUS`, or None for the mean over all.
        limit: Index into the settings' ``max_detections``.
    """

    name: str
    kind: Literal["AP", "AR"]
    area: int
    iou: int | None
    limit: int


@dataclass(frozen=True)
class CocoSettings:
    """What COCO leaves adjustable.

    Args:
        areas: Ranges of an object's area in square pixels, both ends included; ``all`` first.
        max_detections: Ascending numbers of detections per image and class that count.

    Raises:
        InputError: A range that is none, numbers that do not ascend.
    """

    areas: Mapping[str, tuple[float, float]] = field(default_factory=lambda: dict(COCO_AREAS))
    max_detections: tuple[int, ...] = (1, 10, 100)

    def __post_init__(self) -> None:
        if next(iter(self.areas), None) != "all":
            raise InputError(f"areas: expected 'all' as the first range, got {list(self.areas)}")
        for name, (low, high) in self.areas.items():
            if not 0 <= low < high:
                raise InputError(
                    f"area range {name!r}: expected 0 <= low < high, got {low:g} to {high:g}"
                )
        limits = self.max_detections
        is_ascending = list(limits) == sorted(set(limits))
        if not limits or not is_ascending or not 1 <= limits[0] <= limits[-1] <= _MOST_DETECTIONS:
            raise InputError(
                "max_detections: expected ascending numbers from 1 up to "
                f"{_MOST_DETECTIONS}, got {list(limits)}"
            )

    @property
    def metrics(self) -> list[Metric]:
        """The figures of COCO's summary, in its order."""
        last = len(self.max_detections) - 1
        named = list(enumerate(self.areas))[1:]
        return [
            Metric("mAP", "AP", 0, None, last),
            Metric("AP50", "AP", 0, 0, last),
            Metric("AP75", "AP", 0, 5, last),
            *(Metric(f"AP_{name}", "AP", area, None, last) for area, name in named),
            *(
                Metric(f"AR{limit}", "AR", 0, None, index)
                for index, limit in enumerate(self.max_detections)
            ),
            *(Metric(f"AR_{name}", "AR", area, None, last) for area, name in named),
        ]


@dataclass(frozen=True, eq=False)
class Matches:
    """What was found of one category, detection by detection, by descending score.

    Args:
        image: ``[n]``, indices of images.
        rank: ``[n]``, place among the detections of its image, from 0.
        inside: ``[areas, n]``, whether the detection's own area is in the range.
        true: ``[areas, ious, n]``, whether it is a true positive.
        ignored: ``[areas, ious, n]``, whether it counts neither as true nor as false.
        objects: ``[areas, images]``, the number of objects to be found.
    """

    image: NDArray[np.int64]
    rank: NDArray[np.int64]
    inside: NDArray[np.bool_]
    true: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    objects: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The evaluation of one detection file.

    Args:
        annotations: What was to be found.
        detections: What was found.
        settings: Areas and numbers of detections.
        precision: ``[ious, recalls, categories, areas, max_detections]``, interpolated, -1 where
            there is no object.
        recall: ``[ious, categories, areas, max_detections]``, likewise.
        matches: One a category; empty from the backend ``faster``, which keeps none.
    """

    annotations: Annotations
    detections: Detections
    settings: CocoSettings
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    matches: Sequence[Matches]

    @property
    def metrics(self) -> dict[str, float]:
        """COCO's summary in percent; nan where there is no object."""
        return {metric.name: _percent(self._values(metric)) for metric in self.settings.metrics}

    @property
    def class_ap(self) -> dict[str, float]:
        """Average precision (IoU 0.50 to 0.95, all areas) by category, in percent."""
        values = self._values(self.settings.metrics[0])
        names = self.annotations.category_names
        return {name: _percent(values[..., index]) for index, name in enumerate(names)}

    def _values(self, metric: Metric) -> NDArray[np.float64]:
        """The entries over which a metric is the mean; categories last."""
        source = self.precision if metric.kind == "AP" else self.recall
        values = source[..., metric.area, metric.limit]
        return values if metric.iou is None else values[metric.iou : metric.iou + 1]


def _percent(values: NDArray[np.float64]) -> float:
    defined = values[values > -1]
    return 100 * float(np.mean(defined)) if defined.size else float("nan")


def evaluate(
    annotations: Annotations,
    detections: Detections,
    settings: CocoSettings | None = None,
    *,
    backend: Backend = "pycocotools",
    workers: int = 1,
) -> Evaluation:
    """Evaluates detections as COCO does.

    The figures are pycocotools' own, to the last digit. One thing differs on purpose: pycocotools
    takes an object whose annotation id is 0 for one that is never found, and here ids are counted
    from 1.

    Args:
        annotations: From :func:`mmkd.evaluation.coco_files.read_annotations`.
        detections: From :func:`mmkd.evaluation.coco_files.read_detections`.
        settings: COCO's own by default.
        backend: ``'pycocotools'``, or ``'faster'`` for faster-coco-eval.
        workers: Processes; the outcome is the same with any number. ``'faster'`` uses one.

    Raises:
        MissingExtraError: faster-coco-eval is asked for and missing.
    """
    settings = settings or CocoSettings()
    if backend == "faster":
        found = [_evaluate_faster(annotations, detections, settings)]
        parts = [np.arange(len(annotations.category_ids))]
    else:
        parts = _parts(annotations, detections)
        jobs = [
            delayed(_evaluate_part)(
                _of_categories(annotations, part), _of_categories(detections, part), part, settings
            )
            for part in parts
        ]
        found = Parallel(n_jobs=min(workers, len(jobs)))(jobs)
    order = np.argsort(np.concatenate(parts))
    return Evaluation(
        annotations,
        detections,
        settings,
        np.concatenate([each[0] for each in found], axis=2)[:, :, order],
        np.concatenate([each[1] for each in found], axis=1)[:, order],
        _reordered([match for each in found for match in each[2]], order),
    )


def _reordered(matches: list[Matches], order: NDArray[np.int64]) -> list[Matches]:
    return [matches[index] for index in order] if matches else []


def _parts(annotations: Annotations, detections: Detections) -> list[NDArray[np.int64]]:
    """Splits the categories so that the parts hold about the same number of detections."""
    counts = np.bincount(detections.category, minlength=len(annotations.category_ids))
    sizes = [0] * max(1, -(-len(detections) // _DETECTIONS_A_PART))
    parts: list[list[int]] = [[] for _ in sizes]
    for category in np.argsort(-counts, kind="stable"):
        smallest = int(np.argmin(sizes))
        parts[smallest].append(int(category))
        sizes[smallest] += int(counts[category]) + 1
    return [np.sort(part) for part in parts if part]


@dataclass(frozen=True, eq=False)
class _Boxes:
    """Boxes of some categories, as plain arrays that travel to another process."""

    num_images: int
    image: NDArray[np.int64]
    category: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    scores: NDArray[np.float64]


def _of_categories(source: Annotations | Detections, part: NDArray[np.int64]) -> _Boxes:
    kept = np.isin(source.category, part)
    empty = np.zeros(0)
    if isinstance(source, Annotations):
        areas, crowd, scores = source.areas[kept], source.crowd[kept], empty
        num_images = len(source.image_ids)
    else:
        areas, crowd, scores = empty, empty.astype(bool), source.scores[kept]
        num_images = 0
    return _Boxes(
        num_images, source.image[kept], source.category[kept], source.boxes[kept], areas, crowd,
        scores,
    )  # fmt: skip


def _as_coco(objects: _Boxes, categories: Sequence[int], coco: Any) -> Any:
    """Objects in pycocotools' own form. Ids are indices; those of objects begin at 1, since
    pycocotools takes 0 for 'not matched'."""
    columns = (objects.image, objects.category, objects.boxes, objects.areas, objects.crowd)
    coco.dataset = dict(
        images=[dict(id=image) for image in range(objects.num_images)],
        categories=[dict(id=int(category)) for category in categories],
        annotations=[
            dict(id=index, image_id=image, category_id=category, bbox=box, area=area, iscrowd=crowd)
            for index, (image, category, box, area, crowd) in enumerate(
                zip(*(column.tolist() for column in columns), strict=True), start=1
            )
        ],
    )
    coco.createIndex()
    return coco


def _run(
    objects: _Boxes,
    found: _Boxes,
    categories: Sequence[int],
    settings: CocoSettings,
    coco: type,
    coco_eval: Any,
) -> Any:
    """Evaluates with pycocotools or what has its interface."""
    # They print their progress.
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _as_coco(objects, categories, coco())
        rows = np.column_stack([found.image, found.boxes, found.scores, found.category])
        # What has no detections cannot be loaded as a result.
        results = truth.loadRes(rows) if len(rows) else _as_coco(found, [], coco())
        evaluation = coco_eval(truth, results, "bbox")
        parameters = evaluation.params
        parameters.imgIds = list(range(objects.num_images))
        parameters.catIds = [int(category) for category in categories]
        parameters.areaRng = [list(limits) for limits in settings.areas.values()]
        parameters.areaRngLbl = list(settings.areas)
        parameters.maxDets = list(settings.max_detections)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _evaluate_part(
    objects: _Boxes, found: _Boxes, categories: NDArray[np.int64], settings: CocoSettings
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[Matches]]:
    evaluation = _run(objects, found, categories.tolist(), settings, COCO, COCOeval)
    images, areas = objects.num_images, len(settings.areas)
    entries, size = evaluation.evalImgs, images * areas
    matches = [
        _matches_of(entries[start : start + size], images, settings)
        for start in range(0, size * len(categories), size)
    ]
    return evaluation.eval["precision"], evaluation.eval["recall"], matches


def _matches_of(
    entries: Sequence[dict[str, Any] | None], num_images: int, settings: CocoSettings
) -> Matches:
    """From pycocotools' entries of one category: by area, then by image; None is an image with
    neither objects nor detections of it."""
    areas, ious = len(settings.areas), len(IOUS)
    first = [(image, entry) for image, entry in enumerate(entries[:num_images]) if entry]
    objects = np.zeros((areas, num_images), np.int64)
    true, ignored = [], []
    for area in range(areas):
        of_area = [entries[area * num_images + image] or {} for image, _ in first]
        for (image, _), entry in zip(first, of_area, strict=True):
            objects[area, image] = np.count_nonzero(np.asarray(entry["gtIgnore"]) == 0)
        matched = [entry["dtMatches"] != 0 for entry in of_area]
        skipped = [entry["dtIgnore"].astype(bool) for entry in of_area]
        found = np.concatenate([np.zeros((ious, 0), bool), *matched], axis=1)
        skip = np.concatenate([np.zeros((ious, 0), bool), *skipped], axis=1)
        true.append(found & ~skip)
        ignored.append(skip)
    counts = [len(entry["dtScores"]) for _, entry in first]
    scores = np.concatenate([[], *(entry["dtScores"] for _, entry in first)])
    order = np.argsort(-scores, kind="mergesort")
    images = np.repeat(np.array([image for image, _ in first], np.int64), counts)
    rank = np.concatenate([np.zeros(0, np.int64), *(np.arange(count) for count in counts)])
    all_true, all_ignored = np.stack(true)[..., order], np.stack(ignored)[..., order]
    # A detection that matches nothing at the strictest IoU is ignored there if and only if its
    # own area lies outside; where it does match, either answer serves (see bootstrap.py).
    inside = ~all_ignored[:, -1]
    return Matches(images[order], rank[order], inside, all_true, all_ignored, objects)


def _evaluate_faster(
    annotations: Annotations, detections: Detections, settings: CocoSettings
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[Matches]]:
    with extra("fast-eval", "the backend 'faster'"):
        from faster_coco_eval import COCO as FasterCOCO
        from faster_coco_eval import COCOeval_faster
    every = np.arange(len(annotations.category_ids))
    evaluation = _run(
        _of_categories(annotations, every),
        _of_categories(detections, every),
        every.tolist(),
        settings,
        FasterCOCO,
        COCOeval_faster,
    )
    return evaluation.eval["precision"], evaluation.eval["recall"], []


@dataclass(frozen=True)
class CocoScores:
    """Box AP in percent: over IoU 0.50 to 0.95, at 0.50 and at 0.75."""

    mAP: float
    AP50: float
    AP75: float

    def as_dict(self) -> dict[str, float]:
        """The scores by name."""
        return asdict(self)


def evaluate_detections(annotations: str | Path, detections: str | Path) -> CocoScores:
    """Scores a file of detections in COCO's result format.

    Args:
        annotations: COCO annotation file.
        detections: See :func:`mmkd.evaluation.coco_files.read_detections`. An empty list scores 0.

    Raises:
        InputError: A file that cannot be evaluated.
    """
    truth = read_annotations(annotations)
    metrics = evaluate(truth, read_detections(detections, truth)).metrics
    return CocoScores(metrics["mAP"], metrics["AP50"], metrics["AP75"])
