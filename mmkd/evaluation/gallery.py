"""The images on which detectors disagree most, with every box's role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmkd.evaluation.coco_files import Annotations, Detections
from mmkd.evaluation.detection_errors import (
    ERROR_TYPES,
    IGNORED,
    TRUE_POSITIVE,
    ErrorBreakdown,
    break_down_errors,
)

__all__ = ["GalleryBox", "GalleryImage", "select_disagreements"]


@dataclass(frozen=True)
class GalleryBox:
    """A box to be drawn.

    Args:
        box: x, y, width and height in pixels.
        category: Name.
        score: None for a box of the annotations.
        kind: Of a detection ``true positive`` or one of
            :data:`mmkd.evaluation.detection_errors.ERROR_TYPES`, where ``missed`` is the
            annotations' box of a missed object; of the truth ``object`` or ``crowd``.
    """

    box: tuple[float, float, float, float]
    category: str
    score: float | None
    kind: str


@dataclass(frozen=True)
class GalleryImage:
    """An image with what was to be found and what each run found.

    Args:
        file_name: From the annotation file.
        image_id: From the annotation file.
        truth: Its objects and crowds, in the file's order.
        detections: By run: its detections by falling score, then the objects it missed.
        disagreement: See :func:`select_disagreements`.
    """

    file_name: str
    image_id: int | str
    truth: list[GalleryBox]
    detections: dict[str, list[GalleryBox]]
    disagreement: float


def select_disagreements(
    annotations: Annotations,
    runs: Mapping[str, Detections],
    *,
    count: int = 24,
    min_score: float = 0.3,
) -> list[GalleryImage]:
    """Picks the images on which runs disagree most.

    The disagreement on an image is the number of objects that some of the runs find and others do
    not, plus the largest number of false detections of a run less the smallest. Of a single run
    it is the number of its errors: false detections and missed objects. What is found, false and
    missed is what :func:`mmkd.evaluation.detection_errors.break_down_errors` says of the
    detections from ``min_score`` up; so an object that a run does not find is ``missed`` only
    where no detection of that run is a mislocalisation or misclassification of it, which is then
    shown instead. Detections that do not count (in a crowd region, or beyond the 100th of a class)
    are left out.

    Args:
        annotations: What was to be found.
        runs: What each run found, by name.
        count: Images at most.
        min_score: Detections of a lower score are not looked at.

    Returns:
        The most disputed image first; of equal ones the first of ``annotations.image_ids``. Images
        without disagreement are left out.

    Raises:
        ValueError: There is no run.
    """
    if not runs:
        raise ValueError("expected at least one run")
    shown = {name: found.above(min_score) for name, found in runs.items()}
    breakdowns = {name: break_down_errors(annotations, found) for name, found in shown.items()}
    disagreement = _disagreement(annotations, shown, breakdowns)
    ranked = np.argsort(-disagreement, kind="stable")[:count]
    return [
        GalleryImage(
            annotations.file_names[image],
            annotations.image_ids[image],
            _truth_boxes(annotations, image),
            {
                name: _run_boxes(annotations, found, breakdowns[name], image)
                for name, found in shown.items()
            },
            float(disagreement[image]),
        )
        for image in ranked.tolist()
        if disagreement[image] > 0
    ]


def _disagreement(
    annotations: Annotations,
    runs: Mapping[str, Detections],
    breakdowns: Mapping[str, ErrorBreakdown],
) -> NDArray[np.int64]:
    """Of every image."""
    images = len(annotations.image_ids)

    def per_image(image: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(image, minlength=images)

    false = np.stack(
        [
            per_image(found.image[~np.isin(breakdowns[name].kinds, (TRUE_POSITIVE, IGNORED))])
            for name, found in runs.items()
        ]
    )
    if len(runs) == 1:
        (only,) = breakdowns.values()
        return false[0] + per_image(annotations.image[only.missed])
    times_unfound = np.zeros(len(annotations.image), np.int64)
    for breakdown in breakdowns.values():
        times_unfound[breakdown.unfound] += 1
    disputed = (times_unfound > 0) & (times_unfound < len(runs))
    return per_image(annotations.image[disputed]) + np.ptp(false, axis=0)


def _truth_boxes(annotations: Annotations, image: int) -> list[GalleryBox]:
    return [
        _annotated(annotations, box, "crowd" if annotations.crowd[box] else "object")
        for box in np.flatnonzero(annotations.image == image).tolist()
    ]


def _run_boxes(
    annotations: Annotations, found: Detections, breakdown: ErrorBreakdown, image: int
) -> list[GalleryBox]:
    here = np.flatnonzero((found.image == image) & (breakdown.kinds != IGNORED))
    names = {TRUE_POSITIVE: "true positive", **dict(enumerate(ERROR_TYPES))}
    detected = [
        GalleryBox(
            tuple(found.boxes[index].tolist()),
            annotations.category_names[found.category[index]],
            float(found.scores[index]),
            names[int(breakdown.kinds[index])],
        )
        for index in here[np.argsort(-found.scores[here], kind="stable")].tolist()
    ]
    missed = breakdown.missed[annotations.image[breakdown.missed] == image]
    return detected + [_annotated(annotations, box, "missed") for box in missed.tolist()]


def _annotated(annotations: Annotations, box: int, kind: str) -> GalleryBox:
    name = annotations.category_names[annotations.category[box]]
    return GalleryBox(tuple(annotations.boxes[box].tolist()), name, None, kind)
