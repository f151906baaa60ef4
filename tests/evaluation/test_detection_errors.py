"""Error types and their costs: scenes worked out by hand, a slow reference, pycocotools' AP50."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.box_scenes import Box, Found, Truth, annotations, detections
from mmkd.evaluation.coco import CocoSettings, evaluate
from mmkd.evaluation.detection_errors import (
    ERROR_TYPES,
    IGNORED,
    TRUE_POSITIVE,
    ErrorBreakdown,
    break_down_errors,
)

LEFT: Box = (0, 0, 10, 10)
RIGHT: Box = (50, 0, 10, 10)
LEFT_BESIDE: Box = (6, 0, 10, 10)  # IoU 1/4 with LEFT
RIGHT_BESIDE: Box = (56, 0, 10, 10)
# Two objects of class a, one of b; the third image is empty.
TRUTH: list[Truth] = [(0, 0, LEFT, False), (0, 1, RIGHT, False), (1, 0, LEFT, False)]
PERFECT: list[Found] = [(0, 0, LEFT, 0.9), (0, 1, RIGHT, 0.8), (1, 0, LEFT, 0.7)]


def break_down(truth: list[Truth], found: list[Found], **options: float) -> ErrorBreakdown:
    images = 1 + max((image for image, *_ in [*truth, *found]), default=0)
    categories = 1 + max((category for _, category, *_ in [*truth, *found]), default=0)
    truths = annotations(truth, images=images, categories=categories)
    return break_down_errors(truths, detections(found), **options)


def kinds(breakdown: ErrorBreakdown) -> list[str]:
    names = {TRUE_POSITIVE: "true positive", IGNORED: "ignored", **dict(enumerate(ERROR_TYPES))}
    return [names[kind] for kind in breakdown.kinds]


@pytest.mark.parametrize(
    ("kind", "found", "ap50", "cost", "matched"),
    [
        # b's object as an a: a's precision is 0, 1/2, 2/3, b has none.
        ("classification", [PERFECT[0], (0, 0, RIGHT, 0.95), PERFECT[2]], 100 / 3, 200 / 3, 1),
        ("localisation", [PERFECT[0], (0, 1, RIGHT_BESIDE, 0.95), PERFECT[2]], 50, 50, 1),
        # b's precision is 0, 1/2.
        ("both", [PERFECT[0], (1, 1, LEFT_BESIDE, 0.95), *PERFECT[1:]], 75, 25, -1),
        # a's precision is 1, 1/2, 2/3; 51 of 101 recalls are reached by the first.
        (
            "duplicate",
            [PERFECT[0], (0, 0, LEFT, 0.85), *PERFECT[1:]],
            50 + 50 * (51 + 50 * 2 / 3) / 101,
            50 * (50 / 3) / 101,
            0,
        ),
        ("background", [PERFECT[0], (2, 1, LEFT, 0.95), *PERFECT[1:]], 75, 25, -1),
    ],
)
def test_one_wrong_detection_of_each_type(
    kind: str, found: list[Found], ap50: float, cost: float, matched: int
) -> None:
    result = break_down(TRUTH, found)
    assert result.counts == {name: int(name == kind) for name in ERROR_TYPES}
    assert result.ap50 == pytest.approx(ap50, abs=1e-9)
    assert result.cost == pytest.approx({name: cost * (name == kind) for name in ERROR_TYPES})
    assert kinds(result)[1] == kind
    assert result.matched[1] == matched
    assert result.missed.size == 0


def test_one_missed_object() -> None:
    result = break_down(TRUTH, PERFECT[:2])
    assert result.counts == {name: int(name == "missed") for name in ERROR_TYPES}
    assert result.ap50 == pytest.approx(50 + 50 * 51 / 101)
    cost = 50 * 50 / 101
    assert result.cost == pytest.approx({name: cost * (name == "missed") for name in ERROR_TYPES})
    assert result.missed.tolist() == result.unfound.tolist() == [2]


def test_a_perfect_detector_has_no_errors() -> None:
    result = break_down(TRUTH, PERFECT)
    assert result.counts == dict.fromkeys(ERROR_TYPES, 0)
    assert result.cost == dict.fromkeys(ERROR_TYPES, 0.0)
    assert result.ap50 == 100
    assert kinds(result) == ["true positive"] * 3
    assert result.matched.tolist() == [0, 1, 2]
    assert result.missed.size == result.unfound.size == 0


def test_an_explained_object_is_unfound_but_not_missed() -> None:
    result = break_down(TRUTH, [PERFECT[0], (0, 1, RIGHT_BESIDE, 0.95)])
    assert result.unfound.tolist() == [1, 2]
    assert result.missed.tolist() == [2]


def test_several_types_fit() -> None:
    truth: list[Truth] = [(0, 0, LEFT, False), (0, 1, (3, 0, 10, 10), False)]
    # IoU 6/14 with a's object, 9/11 with b's.
    assert kinds(break_down(truth, [(0, 0, (4, 0, 10, 10), 0.9)])) == ["localisation"]
    # The second: IoU 1 with a's object, which is taken, 7/13 with b's.
    found: list[Found] = [(0, 0, LEFT, 0.9), (0, 0, (3, 0, 10, 10), 0.8)]
    assert kinds(break_down(truth, found)) == ["true positive", "classification"]


def test_only_the_best_of_several_errors_at_an_object_is_corrected() -> None:
    truth: list[Truth] = [(0, 0, LEFT, False)]
    found: list[Found] = [(1, 0, LEFT, 0.8), (0, 0, LEFT_BESIDE, 0.9), (0, 0, LEFT_BESIDE, 0.7)]
    assert break_down(truth, found).cost["localisation"] == pytest.approx(100)
    # Behind the false detection it brings half the precision.
    found = [(1, 0, LEFT, 0.95), *found[1:]]
    assert break_down(truth, found).cost["localisation"] == pytest.approx(50)


def test_an_error_at_a_found_object_is_removed_whatever_its_score() -> None:
    truth: list[Truth] = [(0, 0, LEFT, False)]
    found: list[Found] = [(0, 0, LEFT, 0.5), (1, 0, LEFT, 0.7), (0, 0, LEFT_BESIDE, 0.9)]
    result = break_down(truth, found)
    assert result.ap50 == pytest.approx(100 / 3)
    assert result.cost["localisation"] == pytest.approx(100 / 2 - 100 / 3)


def test_a_class_of_which_every_object_was_missed() -> None:
    truth: list[Truth] = [(0, 0, LEFT, False), (0, 1, RIGHT, False)]
    found: list[Found] = [(0, 0, LEFT, 0.9)]
    assert break_down(truth, found).cost["missed"] == 50
    found.append((1, 1, LEFT, 0.9))
    assert break_down(truth, found).cost["missed"] == 0


def test_no_detections() -> None:
    result = break_down(TRUTH, [])
    assert result.counts == {name: 3 * (name == "missed") for name in ERROR_TYPES}
    assert result.ap50 == 0
    assert result.cost == {name: 100.0 * (name == "missed") for name in ERROR_TYPES}
    assert result.missed.tolist() == result.unfound.tolist() == [0, 1, 2]
    assert result.kinds.shape == result.matched.shape == (0,)


def test_no_objects() -> None:
    result = break_down([(0, 0, LEFT, True)], [(0, 0, RIGHT, 0.9), (1, 0, LEFT, 0.8)])
    assert result.counts == {name: 2 * (name == "background") for name in ERROR_TYPES}
    assert math.isnan(result.ap50)
    assert all(map(math.isnan, result.cost.values()))


def test_a_crowd_absorbs_what_takes_no_object() -> None:
    truth: list[Truth] = [(0, 0, (0, 0, 100, 100), True), (0, 0, LEFT, False)]
    found: list[Found] = [
        (0, 0, RIGHT, 0.9),
        (0, 0, RIGHT, 0.8),
        (0, 0, LEFT, 0.7),
        (0, 0, LEFT, 0.6),
        (0, 1, RIGHT, 0.5),
        (0, 0, (96, 0, 10, 10), 0.4),
    ]
    result = break_down(truth, found)
    expected = ["ignored", "ignored", "true positive", "ignored", "background", "background"]
    assert kinds(result) == expected
    assert result.matched.tolist() == [-1, -1, 1, -1, -1, -1]
    assert result.unfound.size == 0
    assert result.ap50 == 100


def test_an_object_comes_before_a_crowd_that_overlaps_more() -> None:
    truth: list[Truth] = [(0, 0, LEFT, False), (0, 0, (0, 0, 100, 100), True)]
    result = break_down(truth, [(0, 0, (2, 0, 10, 10), 0.9)])
    assert kinds(result) == ["true positive"]
    assert result.matched.tolist() == [0]


def test_an_overlap_of_exactly_the_threshold_is_enough() -> None:
    half: Box = (0, 0, 5, 10)
    assert kinds(break_down(TRUTH, [(0, 0, half, 0.9)])) == ["true positive"]
    found: list[Found] = [(0, 0, LEFT, 0.9), (0, 0, half, 0.8), (0, 1, half, 0.7)]
    assert kinds(break_down(TRUTH, found)) == ["true positive", "duplicate", "classification"]
    assert kinds(break_down(TRUTH, [(0, 0, (0, 0, 1, 10), 0.9)])) == ["localisation"]


def test_only_so_many_detections_of_a_class_in_an_image_count() -> None:
    found: list[Found] = [(0, 0, LEFT, 0.1 * step) for step in range(1, 5)]
    result = break_down(TRUTH, [*found, (0, 1, RIGHT, 0.05), (1, 0, LEFT, 0.05)], max_detections=2)
    expected = ["ignored", "ignored", "duplicate", *["true positive"] * 3]
    assert kinds(result) == expected


def test_thresholds_can_be_set() -> None:
    found: list[Found] = [(0, 0, LEFT_BESIDE, 0.9)]
    assert kinds(break_down(TRUTH, found, iou=0.25)) == ["true positive"]
    assert kinds(break_down(TRUTH, found, background_iou=0.25)) == ["localisation"]
    assert kinds(break_down(TRUTH, found, background_iou=0.26)) == ["background"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (dict(iou=0.1), "background_iou 0.1 and iou 0.1"),
        (dict(iou=1.0), "iou 1.0"),
        (dict(background_iou=0.0), "background_iou 0.0"),
        (dict(max_detections=0), "max_detections must be at least 1, got 0"),
    ],
)
def test_bad_options(options: dict[str, float], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        break_down(TRUTH, PERFECT, **options)


def random_scene(
    seed: int, *, images: int, categories: int, ties: bool
) -> tuple[list[Truth], list[Found]]:
    """Objects and crowds, and detections scattered around them and elsewhere."""
    rng = np.random.default_rng(seed)

    def box() -> Box:
        return (*rng.uniform(0, 80, 2).tolist(), *rng.uniform(5, 60, 2).tolist())

    truth = [
        (image, int(rng.integers(categories)), box(), bool(rng.random() < 0.15))
        for image in range(images)
        for _ in range(rng.integers(6))
    ]
    places = [(image, category, place) for image, category, place, _ in truth for _ in range(4)]
    places += [(image, int(rng.integers(categories)), box()) for image in range(images)]
    found: list[Found] = []
    for image, category, (x, y, width, height) in places:
        spread = rng.choice([0.03, 0.15, 0.4])
        shift = rng.normal(0, spread, 4)
        moved = (x + shift[0] * width, y + shift[1] * height)
        size = (width * math.exp(shift[2]), height * math.exp(shift[3]))
        other = int(rng.integers(categories)) if rng.random() < 0.3 else category
        score = round(float(rng.random()), 1 if ties else 9)
        found.append((image, other, (*moved, *size), score))
    rng.shuffle(found)
    return truth, found


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("limit", [1, 3, 100])
@pytest.mark.parametrize("seed", range(3))
def test_ap50_is_pycocotools(seed: int, limit: int, ties: bool) -> None:
    truth, found = random_scene(seed, images=40, categories=5, ties=ties)
    truths = annotations(truth, images=40, categories=6)
    expected = evaluate(truths, detections(found), CocoSettings(max_detections=(limit,)))
    result = break_down_errors(truths, detections(found), max_detections=limit)
    assert 0 < result.ap50 < 100
    assert result.ap50 == pytest.approx(expected.metrics["AP50"], abs=1e-9)
    if limit == 100:
        assert set(kinds(result)) == {"true positive", "ignored", *ERROR_TYPES[:5]}


def overlap(one: Box, other: Box, crowd: bool) -> float:
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = one[2] * one[3]
    return width * height / (area if crowd else area + other[2] * other[3] - width * height)


def reference_precision(
    rows: list[tuple[float, int, int, int, bool]], objects: dict[int, int], classes: set[int]
) -> float:
    """Rows of score, image, place in the file, class, right or not."""
    total = 0.0
    for category in classes:
        ranked = sorted((r for r in rows if r[3] == category), key=lambda r: (-r[0], *r[1:3]))
        if not objects[category]:
            total += not ranked
            continue
        points, right = [], 0
        for count, row in enumerate(ranked, start=1):
            right += row[4]
            points.append((right / objects[category], right / count))
        for recall in np.linspace(0, 1, 101):
            total += max((p for r, p in points if r >= recall), default=0.0) / 101
    return 100 * total / len(classes)


def reference(
    truth: list[Truth], found: list[Found], limit: int
) -> tuple[list[str], list[int], set[int], dict[str, float], float]:
    """Kinds, boxes, missed objects, costs and AP50, one detection at a time, as defined."""
    kind, box_of = ["ignored"] * len(found), [-1] * len(found)
    taken: set[int] = set()
    seen: dict[tuple[int, int], int] = defaultdict(int)
    for index in sorted(range(len(found)), key=lambda i: (-found[i][3], i)):
        image, category, place, _ = found[index]
        seen[image, category] += 1
        if seen[image, category] > limit:
            continue
        here = [
            (overlap(place, box, crowd), number, truth[number][1] == category, crowd)
            for number, (its_image, _, box, crowd) in enumerate(truth)
            if its_image == image
        ]
        free = [
            (iou, number)
            for iou, number, own, crowd in here
            if own and not crowd and iou >= 0.5 and number not in taken
        ]
        if free:
            kind[index], box_of[index] = "true positive", max(free)[1]
            taken.add(box_of[index])
            continue
        if any(own and crowd and iou >= 0.5 for iou, _, own, crowd in here):
            continue
        objects = [each for each in here if not each[3]]
        by_overlap = sorted(objects, key=lambda each: (-each[0], each[1]))
        own = next(((iou, n) for iou, n, same, _ in by_overlap if same), (0.0, -1))
        other = next(((iou, n) for iou, n, same, _ in by_overlap if not same), (0.0, -1))
        if 0.1 <= own[0] < 0.5:
            kind[index], box_of[index] = "localisation", own[1]
        elif other[0] >= 0.5:
            kind[index], box_of[index] = "classification", other[1]
        elif own[0] >= 0.5:
            kind[index], box_of[index] = "duplicate", own[1]
        else:
            kind[index] = "both" if other[0] >= 0.1 else "background"

    unfound = {n for n, (*_, crowd) in enumerate(truth) if not crowd} - taken
    explained = {
        box
        for box, name in zip(box_of, kind, strict=True)
        if name in ("localisation", "classification")
    }
    missed = unfound - explained
    objects_of: dict[int, int] = defaultdict(int)
    for _, category, _, crowd in truth:
        objects_of[category] += not crowd
    classes = {category for category, count in objects_of.items() if count}

    def precision(corrected: str) -> float:
        rows, given = [], set()
        for index in sorted(range(len(found)), key=lambda i: (-found[i][3], found[i][0], i)):
            image, category, _, score = found[index]
            right, box = kind[index] == "true positive", box_of[index]
            if kind[index] == "ignored":
                continue
            if kind[index] == corrected:
                if box not in unfound or box in given or corrected == "duplicate":
                    continue
                given.add(box)
                category, right = truth[box][1], True
            rows.append((score, image, index, category, right))
        left = dict(objects_of)
        if corrected == "missed":
            for box in missed:
                left[truth[box][1]] -= 1
        return reference_precision(rows, left, classes)

    ap50 = precision("nothing")
    return kind, box_of, missed, {name: precision(name) - ap50 for name in ERROR_TYPES}, ap50


def on_grid(most: int) -> st.SearchStrategy[Box]:
    """Boxes on a grid, so that equal overlaps and overlaps of exactly a threshold occur."""
    start, size = st.integers(0, most), st.integers(1, 4)
    return st.tuples(start, start, size, size)


TRUTHS = st.tuples(
    st.integers(0, 1), st.integers(0, 1), on_grid(3), st.sampled_from([False] * 4 + [True])
)
FOUNDS = st.tuples(
    st.integers(0, 2), st.integers(0, 2), on_grid(4), st.sampled_from([0.2, 0.4, 0.5, 0.7, 0.9])
)
SCENES = st.tuples(
    st.lists(TRUTHS, min_size=1, max_size=6).filter(lambda rows: not all(row[3] for row in rows)),
    st.lists(FOUNDS, max_size=12),
)


@settings(deadline=None, max_examples=300, derandomize=True)
@given(SCENES, st.sampled_from([2, 100]))
def test_small_scenes_equal_the_slow_reference(
    scene: tuple[list[Truth], list[Found]], limit: int
) -> None:
    truth, found = scene
    result = break_down(truth, found, max_detections=limit)
    expected_kinds, boxes, missed, cost, ap50 = reference(truth, found, limit)
    assert kinds(result) == expected_kinds
    assert result.matched.tolist() == boxes
    assert set(result.missed.tolist()) == missed
    assert result.ap50 == pytest.approx(ap50, abs=1e-9)
    assert result.cost == pytest.approx(cost, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_scattered_scenes_equal_the_slow_reference(seed: int) -> None:
    truth, found = random_scene(seed, images=8, categories=3, ties=seed % 2 == 0)
    result = break_down(truth, found)
    expected_kinds, boxes, missed, cost, ap50 = reference(truth, found, 100)
    assert kinds(result) == expected_kinds
    assert result.matched.tolist() == boxes
    assert set(result.missed.tolist()) == missed
    assert result.cost == pytest.approx(cost, abs=1e-9)
    assert result.ap50 == pytest.approx(ap50, abs=1e-9)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(SCENES)
def test_every_detection_is_right_ignored_or_one_error(
    scene: tuple[list[Truth], list[Found]],
) -> None:
    truth, found = scene
    result = break_down(truth, found)
    wrong = int(np.sum(~np.isin(result.kinds, (TRUE_POSITIVE, IGNORED))))
    assert sum(result.counts.values()) - result.counts["missed"] == wrong
    right = result.matched[result.kinds == TRUE_POSITIVE]
    assert sorted([*right, *result.unfound]) == [n for n, t in enumerate(truth) if not t[3]]
    assert set(result.missed) <= set(result.unfound)
    assert all(-1e-9 <= cost <= 100 - result.ap50 + 1e-9 for cost in result.cost.values())

    # Of the true positives alone, what is left is what they did not find.
    kept = [row for row, kind in zip(found, result.kinds, strict=True) if kind == TRUE_POSITIVE]
    alone = break_down(truth, kept)
    assert alone.counts == {name: len(alone.unfound) * (name == "missed") for name in ERROR_TYPES}
    assert alone.ap50 + alone.cost["missed"] == pytest.approx(100)
    assert alone.unfound.tolist() == result.unfound.tolist()


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_detections_does_not_matter(seed: int) -> None:
    truth, found = random_scene(seed, images=20, categories=4, ties=False)
    order = np.random.default_rng(seed).permutation(len(found))
    result, other = break_down(truth, found), break_down(truth, [found[i] for i in order])
    assert other.kinds.tolist() == result.kinds[order].tolist()
    assert other.matched.tolist() == result.matched[order].tolist()
    assert other.cost == result.cost
    assert other.ap50 == result.ap50
