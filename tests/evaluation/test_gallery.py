"""Which images the gallery picks, in which order, and what it says of their boxes."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.box_scenes import Box, Found, Truth, annotations, detections
from mmkd.evaluation.detection_errors import ERROR_TYPES, break_down_errors
from mmkd.evaluation.gallery import GalleryBox, select_disagreements

PLACES: list[Box] = [(0, 0, 10, 10), (20, 0, 10, 10), (40, 0, 10, 10)]
BESIDE: Box = (6, 0, 10, 10)  # IoU 1/4 with the first place
NOWHERE: Box = (0, 80, 10, 10)
# Four images with an a at each place; on the last also a crowd.
TRUTH: list[Truth] = [(image, 0, place, False) for image in range(4) for place in PLACES]
CROWD: Box = (0, 40, 90, 30)
TRUTH.append((3, 1, CROWD, True))
ANNOTATIONS = annotations(TRUTH, images=4, categories=2)
ALL: list[Found] = [(image, 0, place, 0.9) for image, _, place, crowd in TRUTH if not crowd]


def test_the_most_disputed_image_comes_first() -> None:
    baseline = [
        # Image 0: all found. Image 1: none found. Image 2: one not found, one false detection.
        *ALL[:3],
        *ALL[6:8],
        (2, 1, NOWHERE, 0.5),
        *ALL[9:],
    ]
    runs = {"plain": detections(baseline), "distilled": detections(ALL), "teacher": detections(ALL)}
    picked = select_disagreements(ANNOTATIONS, runs)
    assert [(image.file_name, image.image_id) for image in picked] == [("1.png", 11), ("2.png", 12)]
    assert [image.disagreement for image in picked] == [3, 2]
    assert [image.file_name for image in select_disagreements(ANNOTATIONS, runs, count=1)] == [
        "1.png"
    ]


def test_what_all_runs_do_alike_is_no_disagreement() -> None:
    same = detections([ALL[0], (1, 1, NOWHERE, 0.9)])
    assert select_disagreements(ANNOTATIONS, {"plain": same, "distilled": same}) == []


def test_false_detections_disagree_by_their_spread() -> None:
    runs = {
        name: detections([*ALL, *[(2, 1, NOWHERE, 0.5)] * false])
        for name, false in [("plain", 5), ("distilled", 2), ("teacher", 3)]
    }
    assert [image.disagreement for image in select_disagreements(ANNOTATIONS, runs)] == [3]


def test_of_equal_images_the_first_comes_first() -> None:
    runs = {"plain": detections([]), "distilled": detections(ALL)}
    picked = select_disagreements(ANNOTATIONS, runs)
    assert [image.image_id for image in picked] == [10, 11, 12, 13]
    assert select_disagreements(ANNOTATIONS, runs, count=2) == picked[:2]


def test_a_single_run_is_shown_where_it_errs_most() -> None:
    found = [*ALL[1:3], *ALL[3:6], (1, 0, BESIDE, 0.8), (1, 1, NOWHERE, 0.8), *ALL[6:]]
    picked = select_disagreements(ANNOTATIONS, {"plain": detections(found)})
    assert [(image.image_id, image.disagreement) for image in picked] == [(11, 2), (10, 1)]


def test_the_boxes_say_what_they_are() -> None:
    found: list[Found] = [
        (3, 0, PLACES[1], 0.7),
        (3, 0, BESIDE, 0.8),
        (3, 1, PLACES[1], 0.6),
        (3, 0, PLACES[1], 0.5),
        (3, 1, (24, 0, 10, 10), 0.45),
        (3, 1, NOWHERE, 0.4),
        (3, 1, (5, 45, 10, 10), 0.9),  # in the crowd
        (3, 0, PLACES[2], 0.2),  # below the lowest score
    ]
    runs = {"plain": detections(found), "teacher": detections(ALL)}
    image = next(i for i in select_disagreements(ANNOTATIONS, runs) if i.image_id == 13)
    assert image.truth == [
        *(GalleryBox(place, "a", None, "object") for place in PLACES),
        GalleryBox(CROWD, "b", None, "crowd"),
    ]
    assert image.detections["plain"] == [
        GalleryBox(BESIDE, "a", 0.8, "localisation"),
        GalleryBox(PLACES[1], "a", 0.7, "true positive"),
        GalleryBox(PLACES[1], "b", 0.6, "classification"),
        GalleryBox(PLACES[1], "a", 0.5, "duplicate"),
        GalleryBox((24, 0, 10, 10), "b", 0.45, "both"),
        GalleryBox(NOWHERE, "b", 0.4, "background"),
        # The first object is explained by the mislocalisation.
        GalleryBox(PLACES[2], "a", None, "missed"),
    ]
    assert [box.kind for box in image.detections["teacher"]] == ["true positive"] * 3
    # Two objects that the teacher alone finds, and five false detections.
    assert image.disagreement == 7


def test_the_lowest_score_can_be_set() -> None:
    runs = {"plain": detections([(i, c, b, 0.2) for i, c, b, _ in ALL]), "teacher": detections(ALL)}
    assert len(select_disagreements(ANNOTATIONS, runs)) == 4
    assert select_disagreements(ANNOTATIONS, runs, min_score=0.2) == []


def test_all_images_together_show_the_breakdown() -> None:
    rng = np.random.default_rng(0)
    found: list[Found] = [
        (int(image), int(rng.integers(2)), (float(x), 0.0, 10.0, 10.0), float(score))
        for image, x, score in zip(
            rng.integers(0, 4, 60), rng.uniform(0, 60, 60), rng.uniform(0.3, 1, 60), strict=True
        )
    ]
    picked = select_disagreements(ANNOTATIONS, {"plain": detections(found)})
    kinds = [box.kind for image in picked for box in image.detections["plain"]]
    counts = break_down_errors(ANNOTATIONS, detections(found)).counts
    assert min(counts[kind] for kind in ERROR_TYPES if kind != "missed") > 0
    assert {kind: kinds.count(kind) for kind in ERROR_TYPES} == counts
    assert sum(image.disagreement for image in picked) == sum(counts.values())


def test_without_runs() -> None:
    with pytest.raises(ValueError, match="at least one run"):
        select_disagreements(ANNOTATIONS, {})
