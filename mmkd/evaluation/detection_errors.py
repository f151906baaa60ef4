"""What a detector does wrong, by type, and what each type costs.

After Bolya, Foley, Hays and Hoffman, "TIDE: A General Toolbox for Identifying Object Detection
Errors" (ECCV 2020), section 2. Where the paper is silent, the reading is the one of its authors'
tool unless :func:`break_down_errors` says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask

from mmkd.evaluation.coco import RECALLS
from mmkd.evaluation.coco_files import Annotations, Detections

__all__ = ["ERROR_TYPES", "IGNORED", "TRUE_POSITIVE", "ErrorBreakdown", "break_down_errors"]

ERROR_TYPES = ("classification", "localisation", "both", "duplicate", "background", "missed")
TRUE_POSITIVE = -1
IGNORED = -2
_CLASSIFICATION, _LOCALISATION, _BOTH, _DUPLICATE, _BACKGROUND, _MISSED = range(6)


@dataclass(frozen=True, eq=False)
class ErrorBreakdown:
    """The errors of a detection file.

    "Box" is an index into the annotations' boxes.

    Args:
        counts: By type: the detections in error; for ``missed``, objects.
        cost: By type: AP50 points, in percent, that correcting all errors of it alone would add.
        ap50: What they are added to, in percent. It and ``cost`` are nan where there is no object.
        kinds: ``[detections]``, index into :data:`ERROR_TYPES`, or :data:`TRUE_POSITIVE` or
            :data:`IGNORED`.
        matched: ``[detections]``, the box of which a detection is the true positive, a duplicate,
            or that it mislocalises or misclassifies; -1 for the others.
        missed: Ascending boxes of objects that no detection found and no other error explains.
        unfound: Ascending boxes of all objects, crowds apart, without a true positive.
    """

    counts: dict[str, int]
    cost: dict[str, float]
    ap50: float
    kinds: NDArray[np.int8]
    matched: NDArray[np.int64]
    missed: NDArray[np.int64]
    unfound: NDArray[np.int64]


def break_down_errors(
    annotations: Annotations,
    detections: Detections,
    *,
    iou: float = 0.5,
    background_iou: float = 0.1,
    max_detections: int = 100,
) -> ErrorBreakdown:
    """Sorts a detector's errors into TIDE's six types and weighs each by what it costs in AP50.

    Detections are matched as COCO does it: image by image and class by class, in the order of
    falling scores, each takes the free object of its class that it overlaps most, by at least
    ``iou``; of equal ones the last in the file, as pycocotools does. A crowd region of its class
    absorbs any number of detections that take no object; absorbed detections, and those beyond
    ``max_detections`` of a class in an image, are ignored: neither right nor wrong. Every other
    detection without an object is one error, of the first type that fits (crowds do not count as
    objects here):

    1. *localisation*: its largest overlap with an object of its class is in
       [``background_iou``, ``iou``);
    2. *classification*: its largest overlap with an object of another class is ``iou`` or more;
    3. *duplicate*: its largest overlap with an object of its class, which another detection then
       has, is ``iou`` or more;
    4. *both*: it overlaps an object of another class by ``background_iou`` or more;
    5. *background*: it overlaps none that much.

    The paper defines the types but not which one a detection has that fits several; this order is
    that of the authors' tool, as is that an error belongs to the object that it overlaps most
    (of equal ones the first in the file), found or not. An object that no detection has is
    *missed*, unless a localisation or classification error belongs to it.

    The cost of a type is the rise of AP50 when an oracle corrects all errors of it, without
    matching anew:

    - Classification, localisation: the detection becomes the true positive, with its score, of
      the object that it belongs to. Only the highest-scored of those with the same object does
      so, and none if the object has a true positive already, whatever the scores; the others are
      removed as duplicates.
    - Both, duplicate, background: the detection is removed.
    - Missed: the missed objects no longer count. A class whose objects were all missed stays in
      the mean, which the paper leaves open: at AP 100 if nothing false was reported of it, else
      at 0. So correcting everything always gives 100.

    AP50 is COCO's: at ``iou``, interpolated at 101 recalls, the mean over the classes that have
    objects. Costs are never negative, and do not add up to what is missing to 100.

    Without crowds, and up to 100 detections an image, the counts are those of the authors' tool.
    What differs otherwise: each type is corrected alone, as the paper has it, where the tool gives
    an object that both a classification and a localisation error belong to only to the
    higher-scored one, in either correction. And as in COCO, ``max_detections`` holds for each
    class of an image, not for the image, classes without objects do not enter the mean, and
    ignored detections are no errors.

    Args:
        annotations: What was to be found.
        detections: What was found.
        iou: The overlap (intersection over union) from which a detection finds an object.
        background_iou: The overlap below which a detection has nothing to do with an object.
        max_detections: Detections of a class in an image that count.

    Raises:
        ValueError: Unless 0 < ``background_iou`` < ``iou`` < 1 and ``max_detections`` > 0.
    """
    if not 0 < background_iou < iou < 1:
        raise ValueError(
            f"expected 0 < background_iou < iou < 1, got background_iou {background_iou} and "
            f"iou {iou}"
        )
    if max_detections < 1:
        raise ValueError(f"max_detections must be at least 1, got {max_detections}")
    ranked = _ranked(annotations, detections, max_detections)
    overlaps = _overlaps(annotations, detections, ranked, background_iou)
    kinds, matched = _true_positives(annotations, overlaps, ranked, len(detections), iou)
    _classify(annotations, overlaps, kinds, matched, iou)

    objects = ~annotations.crowd
    objects[matched[kinds == TRUE_POSITIVE]] = False
    unfound = np.flatnonzero(objects)
    objects[matched[(kinds == _CLASSIFICATION) | (kinds == _LOCALISATION)]] = False
    missed = np.flatnonzero(objects)

    counts = {name: int(np.sum(kinds == kind)) for kind, name in enumerate(ERROR_TYPES)}
    counts["missed"] = len(missed)
    counted = ranked[kinds[ranked] != IGNORED]
    found = _Found(detections.category[counted], kinds[counted], matched[counted])
    ap50, cost = _costs(annotations, found, unfound, missed)
    return ErrorBreakdown(counts, cost, ap50, kinds, matched, missed, unfound)


@dataclass(frozen=True, eq=False)
class _Overlaps:
    """Pairs of a detection and a box of its image.

    Args:
        detection: ``[pairs]``, indices.
        box: ``[pairs]``, indices of annotations.
        iou: ``[pairs]``; with a crowd, the share of the detection that lies in it.
        same_class: ``[pairs]``.
    """

    detection: NDArray[np.int64]
    box: NDArray[np.int64]
    iou: NDArray[np.float64]
    same_class: NDArray[np.bool_]

    def where(self, chosen: NDArray[np.bool_]) -> _Overlaps:
        """Some of the pairs."""
        return _Overlaps(
            self.detection[chosen], self.box[chosen], self.iou[chosen], self.same_class[chosen]
        )

    def largest(self, detections: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The box that each detection overlaps most, and by how much; -1 and 0 for none."""
        box, iou = np.full(detections, -1), np.zeros(detections)
        # Of several values for one entry the last stays: the largest, of these the first box.
        order = np.lexsort((-self.box, self.iou))
        box[self.detection[order]] = self.box[order]
        iou[self.detection[order]] = self.iou[order]
        return box, iou


def _ranked(annotations: Annotations, detections: Detections, limit: int) -> NDArray[np.int64]:
    """The detections that count, by falling score, then by image, as pycocotools orders them."""
    order = np.lexsort((detections.image, -detections.scores))
    group = detections.image * len(annotations.category_ids) + detections.category
    by_group = np.argsort(group[order], kind="stable")
    grouped = group[order][by_group]
    place = np.arange(len(order)) - np.searchsorted(grouped, grouped)
    counts = np.zeros(len(order), bool)
    counts[by_group] = place < limit
    return order[counts]


def _overlaps(
    annotations: Annotations, detections: Detections, ranked: NDArray[np.int64], least: float
) -> _Overlaps:
    """All pairs that overlap by ``least`` or more."""
    found = ranked[np.argsort(detections.image[ranked], kind="stable")]
    boxes = np.argsort(annotations.image, kind="stable")
    images = np.arange(len(annotations.image_ids) + 1)
    found_from = np.searchsorted(detections.image[found], images)
    boxes_from = np.searchsorted(annotations.image[boxes], images)
    pairs = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for image in np.flatnonzero((np.diff(found_from) > 0) & (np.diff(boxes_from) > 0)):
        here = found[found_from[image] : found_from[image + 1]]
        there = boxes[boxes_from[image] : boxes_from[image + 1]]
        ious = mask.iou(detections.boxes[here], annotations.boxes[there], annotations.crowd[there])
        row, column = np.nonzero(ious >= least)
        pairs.append((here[row], there[column], ious[row, column]))
    detection, box, iou = (np.concatenate(columns) for columns in zip(*pairs, strict=True))
    same_class = detections.category[detection] == annotations.category[box]
    return _Overlaps(detection, box, iou, same_class)


def _true_positives(
    annotations: Annotations,
    overlaps: _Overlaps,
    ranked: NDArray[np.int64],
    detections: int,
    iou: float,
) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """Kinds and boxes of the detections by COCO's matching; what is not matched is left as
    background."""
    near = overlaps.where(overlaps.same_class & (overlaps.iou >= iou))
    rank = np.zeros(detections, np.int64)
    rank[ranked] = np.arange(len(ranked))
    # Objects before crowds, then the largest overlap; of equal ones pycocotools takes the last.
    crowd = annotations.crowd[near.box]
    order = np.lexsort((-near.box, -near.iou, crowd, rank[near.detection]))
    taken: set[int] = set()
    match: dict[int, int] = {}
    columns = (near.detection[order], near.box[order], crowd[order])
    for detection, box, is_crowd in zip(*(each.tolist() for each in columns), strict=True):
        if detection in match or box in taken:
            continue
        match[detection] = box
        if not is_crowd:
            taken.add(box)
    matched = np.full(detections, -1)
    matched[list(match)] = list(match.values())
    absorbed = np.zeros(detections, bool)
    absorbed[matched >= 0] = annotations.crowd[matched[matched >= 0]]
    kinds = np.full(detections, IGNORED, np.int8)
    kinds[ranked] = _BACKGROUND
    kinds[matched >= 0] = TRUE_POSITIVE
    kinds[absorbed] = IGNORED
    matched[absorbed] = -1
    return kinds, matched


def _classify(
    annotations: Annotations,
    overlaps: _Overlaps,
    kinds: NDArray[np.int8],
    matched: NDArray[np.int64],
    iou: float,
) -> None:
    """Gives the detections that are background so far, in place, the first type that fits."""
    wrong = kinds == _BACKGROUND
    overlaps = overlaps.where(wrong[overlaps.detection] & ~annotations.crowd[overlaps.box])
    box, largest = overlaps.where(overlaps.same_class).largest(len(kinds))
    other_box, other_largest = overlaps.where(~overlaps.same_class).largest(len(kinds))
    types = [
        (_LOCALISATION, (box >= 0) & (largest < iou), box),
        (_CLASSIFICATION, other_largest >= iou, other_box),
        (_DUPLICATE, box >= 0, box),
        (_BOTH, other_box >= 0, np.full(len(box), -1)),
    ]
    for kind, fits, its_box in types:
        chosen = (kinds == _BACKGROUND) & fits
        kinds[chosen] = kind
        matched[chosen] = its_box[chosen]


@dataclass(frozen=True, eq=False)
class _Found:
    """Detections that are right or wrong, by falling score: category, kind and box of each."""

    category: NDArray[np.int64]
    kinds: NDArray[np.int8]
    matched: NDArray[np.int64]


def _costs(
    annotations: Annotations,
    found: _Found,
    unfound: NDArray[np.int64],
    missed: NDArray[np.int64],
) -> tuple[float, dict[str, float]]:
    """AP50, and by type what correcting its errors adds."""
    num_classes = len(annotations.category_ids)
    objects = np.bincount(annotations.category[~annotations.crowd], minlength=num_classes)
    classes = np.flatnonzero(objects)
    ap50 = _average_precision(found, objects, classes)
    corrected = {
        name: _average_precision(_corrected(found, kind, annotations, unfound), objects, classes)
        for kind, name in enumerate(ERROR_TYPES[:_MISSED])
    }
    left = objects - np.bincount(annotations.category[missed], minlength=num_classes)
    corrected["missed"] = _average_precision(found, left, classes)
    return ap50, {name: value - ap50 for name, value in corrected.items()}


def _corrected(
    found: _Found, kind: int, annotations: Annotations, unfound: NDArray[np.int64]
) -> _Found:
    """The detections once an oracle has corrected all errors of a type, but the missed."""
    category, kinds = found.category.copy(), found.kinds.copy()
    if kind in (_CLASSIFICATION, _LOCALISATION):
        wrong = np.flatnonzero(kinds == kind)
        # The first of each object is the highest-scored.
        boxes, first = np.unique(found.matched[wrong], return_index=True)
        righted = wrong[first[np.isin(boxes, unfound)]]
        category[righted] = annotations.category[found.matched[righted]]
        kinds[righted] = TRUE_POSITIVE
    kept = kinds != kind
    return _Found(category[kept], kinds[kept], found.matched[kept])


def _average_precision(
    found: _Found, objects: NDArray[np.int64], classes: NDArray[np.int64]
) -> float:
    """The mean over some classes in percent; ``objects`` is their number by class."""
    by_class = np.argsort(found.category, kind="stable")
    bounds = np.searchsorted(found.category[by_class], np.arange(len(objects) + 1))
    true = found.kinds[by_class] == TRUE_POSITIVE
    values = [_class_precision(true[bounds[c] : bounds[c + 1]], int(objects[c])) for c in classes]
    return 100 * float(np.mean(values)) if values else float("nan")


def _class_precision(true: NDArray[np.bool_], objects: int) -> float:
    """Average precision of one class, 0 to 1, of its detections by falling score."""
    if not objects:
        return 0.0 if len(true) else 1.0
    hits = np.cumsum(true)
    precision = hits / np.arange(1, len(true) + 1)
    # At a recall the best precision counts that is reached there or at a higher one.
    best = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(hits / objects, RECALLS)
    return float(best[place[place < len(true)]].sum()) / len(RECALLS)
