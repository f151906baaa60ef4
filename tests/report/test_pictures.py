"""What the gallery draws: boxes with their labels, and copies of the photos."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from helpers.box_scenes import annotations
from mmkd.evaluation.gallery import GalleryBox, GalleryImage
from mmkd.report.pictures import Picture, gallery_pictures

OBJECT, SMALL = (10.04, 20.0, 30.0, 40.0), (5.0, 5.0, 3.0, 3.0)
TRUTH = annotations([(0, 0, OBJECT, False), (0, 1, SMALL, False)], images=1, categories=2)
NAMES = TRUTH.category_names


def picture_of(boxes: list[GalleryBox], images: Path | None = None) -> Picture:
    truth = [GalleryBox(OBJECT, NAMES[0], None, "object")]
    image = GalleryImage("photo.jpg", 1, truth, {"a run": boxes}, 1.0)
    [picture] = gallery_pictures([image], TRUTH, images)
    return picture


def test_boxes_are_labelled_and_errors_come_last() -> None:
    truth, run = picture_of(
        [
            GalleryBox(OBJECT, NAMES[1], 0.456, "classification"),
            GalleryBox(SMALL, NAMES[1], 0.9, "true positive"),
            GalleryBox(OBJECT, NAMES[0], None, "missed"),
        ]
    ).panels
    [mark] = truth.marks
    assert (mark.box, mark.label) == ((10.0, 20.0, 30.0, 40.0), NAMES[0])
    assert mark.description == f"{NAMES[0]}, object"
    assert [(mark.kind, mark.label, mark.description) for mark in run.marks] == [
        ("missed", NAMES[0], f"{NAMES[0]}, missed"),
        ("true-positive", f"{NAMES[1]} 0.90", f"{NAMES[1]} 0.90, true positive"),
        ("classification", f"{NAMES[1]} 0.46", f"{NAMES[1]} 0.46, classification"),
    ]
    assert run.summary == "1 classification, 1 true positive, 1 missed"


@pytest.mark.parametrize(
    ("size", "kept"), [((1600, 1200), (800, 600)), ((300, 900), (267, 800)), ((320, 240),) * 2]
)
def test_photos_are_as_large_as_an_enlarged_picture_needs(
    tmp_path: Path, size: tuple[int, int], kept: tuple[int, int]
) -> None:
    Image.new("RGB", size, (90, 120, 40)).save(tmp_path / "photo.jpg")
    picture = picture_of([], tmp_path)
    # Boxes are in pixels of the image itself.
    assert (picture.width, picture.height) == size
    assert picture.photo is not None
    kind, _, data = picture.photo.partition(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == kept
