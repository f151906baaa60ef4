"""Annotation and detection files: what the trainers write, and every kind of bad input."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mmkd.errors import InputError
from mmkd.evaluation.coco_files import Annotations, Detections, read_annotations, read_detections
from mmkd.evaluation.coco_ids import CategoryIds

COCO_IDS = [each for each in range(1, 91) if each not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
DROP = object()


def truth_of(
    category_ids: Sequence[int] = (1, 2, 3),
    images: Sequence[tuple[int | str, str]] = ((7, "val/a.jpg"), (4, "val/b.jpg")),
) -> dict[str, Any]:
    """A box of every category, on the images in turn."""
    return dict(
        images=[dict(id=each, file_name=name, width=64, height=48) for each, name in images],
        categories=[dict(id=each, name=f"class {each}") for each in category_ids],
        annotations=[
            dict(
                id=10 + index,
                image_id=images[index % len(images)][0],
                category_id=each,
                bbox=[index, 2.5, 10, 20],
                area=150.5,
                iscrowd=0,
            )
            for index, each in enumerate(category_ids)
        ],
    )


def found_of(*entries: tuple[int | str, int], **more: Any) -> list[dict[str, Any]]:
    """Detections of these image and category ids."""
    return [
        dict(image_id=image, category_id=category, bbox=[1.5, -2, 10, 20], score=0.5, **more)
        for image, category in entries
    ]


def write(folder: Path, name: str, content: Any) -> Path:
    file = folder / name
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def annotations_of(folder: Path, content: Any = None) -> Annotations:
    return read_annotations(write(folder, "truth.json", content or truth_of()))


def read(folder: Path, truth: Any, found: Any, category_ids: CategoryIds = "auto") -> Detections:
    return read_detections(
        write(folder, "found.json", found), annotations_of(folder, truth), category_ids
    )


def test_annotations_are_sorted_by_id(tmp_path: Path) -> None:
    content = truth_of((5, 1, 3))
    content["annotations"][1].update(iscrowd=1, bbox=[-1, 0, 0, 3], ignore=1)
    del content["annotations"][1]["area"], content["annotations"][2]["iscrowd"]
    truth = annotations_of(tmp_path, content)
    assert truth.file == tmp_path / "truth.json"
    assert truth.digest == hashlib.sha256(truth.file.read_bytes()).hexdigest()
    assert truth.image_ids == [4, 7] and truth.file_names == ["val/b.jpg", "val/a.jpg"]
    assert truth.category_ids == [1, 3, 5]
    assert truth.category_names == ["class 1", "class 3", "class 5"]
    np.testing.assert_array_equal(truth.image, [1, 0, 1])
    np.testing.assert_array_equal(truth.category, [2, 0, 1])
    np.testing.assert_array_equal(truth.boxes, [[0, 2.5, 10, 20], [-1, 0, 0, 3], [2, 2.5, 10, 20]])
    np.testing.assert_array_equal(truth.areas, [150.5, 0, 150.5])
    # `ignore` of the file is overwritten by `iscrowd` in pycocotools.
    np.testing.assert_array_equal(truth.crowd, [False, True, False])
    assert truth.boxes.dtype == truth.areas.dtype == np.float64
    assert truth.image.dtype == truth.category.dtype == np.int64
    assert truth.crowd.dtype == np.bool_


def test_an_area_that_is_missing_is_the_boxs(tmp_path: Path) -> None:
    content = truth_of()
    del content["annotations"][0]["area"]
    assert annotations_of(tmp_path, content).areas.tolist() == [200, 150.5, 150.5]


def test_images_may_have_no_name_and_ids_may_be_strings(tmp_path: Path) -> None:
    content = truth_of(images=(("b", "2.jpg"), ("a", "1.jpg")))
    del content["images"][0]["file_name"]
    truth = annotations_of(tmp_path, content)
    assert truth.image_ids == ["a", "b"] and truth.file_names == ["1.jpg", ""]
    found = read_detections(write(tmp_path, "found.json", found_of(("b", 1), ("a", 2))), truth)
    assert found.image.tolist() == [1, 0]


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    file = tmp_path / "truth.json"
    file.write_text(json.dumps(truth_of()), encoding="utf-8-sig")
    assert len(read_annotations(file).boxes) == 3


def test_detections(tmp_path: Path) -> None:
    entries = found_of((7, 3), (4, 1), (7, 1))
    entries[0]["score"], entries[1]["score"] = 1, 17.25  # legal, as pycocotools has it
    found = read(tmp_path, truth_of(), entries)
    assert found.file == tmp_path / "found.json" and len(found) == 3
    assert found.image.tolist() == [1, 0, 1] and found.category.tolist() == [2, 0, 0]
    np.testing.assert_array_equal(found.boxes, [[1.5, -2, 10, 20]] * 3)
    assert found.scores.tolist() == [1, 17.25, 0.5]
    assert found.boxes.dtype == found.scores.dtype == np.float64
    assert found.image.dtype == found.category.dtype == np.int64
    assert found.above(1).image.tolist() == [1, 0]


def test_no_detections(tmp_path: Path) -> None:
    found = read(tmp_path, truth_of(), [])
    assert len(found) == 0 and found.boxes.shape == (0, 4) and found.image.dtype == np.int64
    assert found.convention == "no detections"


# What the trainers write.

CATEGORY_LAYOUTS = {
    "from 0": list(range(5)),
    "from 1": list(range(1, 6)),
    "gaps": [2, 5, 9, 11, 40],
    "COCO": COCO_IDS,
}
IMAGE_LAYOUTS: dict[str, list[tuple[int | str, str]]] = {
    "COCO": [(139, "000000000139.jpg"), (2, "000000000002.jpg"), (88, "000000000088.jpg")],
    "string stems": [(1, "first photo.jpg"), (2, "sub/second.v2.png"), (3, "third")],
    "numeric stems": [(1, "2.jpg"), (2, "3.jpg"), (3, "1.jpg")],
    "string ids": [("x", "07.jpg"), ("y", "08.jpg"), ("z", "z.jpg")],
}
# Corners, which are exact in float32 and at three decimals.
CORNERS = torch.tensor([[1.5, 2.0, 11.25, 32.0], [0.0, 0.25, 5.0, 8.5]])


def expected_of(truth: Annotations, labels: Sequence[int]) -> list[tuple[int | str, int, float]]:
    """Two detections on every image, of classes in turn: file name, class, and score."""
    return [
        (name, labels[(2 * place + box) % len(labels)], 0.25 + 0.125 * box)
        for place, name in enumerate(truth.file_names)
        for box in range(2)
    ]


def check(truth: Annotations, found: Detections, labels: Sequence[int]) -> None:
    """Each box lies on its image, with its class: the class's place in the order of the ids."""
    read = zip(
        [truth.file_names[index] for index in found.image],
        found.category.tolist(),
        found.scores.tolist(),
        strict=True,
    )
    assert sorted(read) == sorted(expected_of(truth, labels))
    boxes = np.array([[1.5, 2, 9.75, 30], [0, 0.25, 5, 8.25]])
    np.testing.assert_array_equal(found.boxes, boxes[(found.scores > 0.3).astype(int)])


@pytest.mark.parametrize("images", IMAGE_LAYOUTS)
@pytest.mark.parametrize("categories", CATEGORY_LAYOUTS)
def test_what_mmdetection_writes(categories: str, images: str, tmp_path: Path) -> None:
    metrics = pytest.importorskip("mmdet.evaluation")
    truth = annotations_of(tmp_path, truth_of(CATEGORY_LAYOUTS[categories], IMAGE_LAYOUTS[images]))
    metric = metrics.CocoMetric(
        str(truth.file), format_only=True, outfile_prefix=str(tmp_path / "found")
    )
    metric.dataset_meta = dict(classes=truth.category_names)
    labels = [1, 2, len(truth.category_ids) - 1]
    expected = expected_of(truth, labels)
    for place, image_id in enumerate(truth.image_ids):
        pair = expected[2 * place : 2 * place + 2]
        instances = dict(
            bboxes=CORNERS,
            labels=torch.tensor([label for _, label, _ in pair]),
            scores=torch.tensor([score for _, _, score in pair]),
        )
        metric.process({}, [dict(img_id=image_id, ori_shape=(48, 64), pred_instances=instances)])
    metric.evaluate(size=len(truth.image_ids))
    found = read_detections(tmp_path / "found.bbox.json", truth)
    check(truth, found, labels)
    assert found.convention.startswith("images by image_id")
    assert "categories by the annotation file's ids" in found.convention


@pytest.fixture
def validator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Makes Ultralytics' validator, as it is before its first batch."""
    for name, value in (("YOLO_CONFIG_DIR", str(tmp_path / "config")), ("YOLO_OFFLINE", "true")):
        monkeypatch.setenv(name, os.environ.get(name, value))
    pytest.importorskip("ultralytics")
    from ultralytics.models.yolo.detect import DetectionValidator

    def make(num_classes: int, images: str) -> Any:
        made = DetectionValidator(save_dir=tmp_path, args=dict(imgsz=64))
        made.training, made.data = True, dict(val=images)
        made.init_metrics(SimpleNamespace(names={k: f"class {k}" for k in range(num_classes)}))
        return made

    return make


def written_by(validator: Any, truth: Annotations, labels: Sequence[int]) -> list[dict[str, Any]]:
    expected = expected_of(truth, labels)
    for place, name in enumerate(truth.file_names):
        pair = expected[2 * place : 2 * place + 2]
        predictions = dict(
            bboxes=CORNERS.clone(),
            conf=torch.tensor([score for _, _, score in pair]),
            cls=torch.tensor([float(label) for _, label, _ in pair]),
        )
        validator.pred_to_json(predictions, dict(im_file=f"/somewhere/images/{name}"))
    return validator.jdict


@pytest.mark.parametrize("images", IMAGE_LAYOUTS)
@pytest.mark.parametrize("categories", CATEGORY_LAYOUTS)
def test_what_ultralytics_writes(
    categories: str, images: str, tmp_path: Path, validator: Callable[..., Any]
) -> None:
    truth = annotations_of(tmp_path, truth_of(CATEGORY_LAYOUTS[categories], IMAGE_LAYOUTS[images]))
    count = len(truth.category_ids)
    # On COCO's ids, one whose number COCO leaves out: 12 for class 11.
    labels = [1, 2, count - 1] if count < 12 else [1, 11, count - 1]
    entries = written_by(validator(count, "data/images"), truth, labels)
    assert {entry["category_id"] for entry in entries} == {label + 1 for label in labels}
    found = read_detections(write(tmp_path, "found.json", entries), truth)
    check(truth, found, labels)
    assert found.convention.startswith(f"images by file_name, categories as 1 to {count} in the")
    # Before 8.3 or so it wrote no names: the ids of images are then all there is.
    for entry in entries:
        del entry["file_name"]
    write(tmp_path, "found.json", entries)
    if images == "numeric stems":  # which are ids of other images; nothing tells
        found = read_detections(tmp_path / "found.json", truth, "one-based")
        assert "would also fit: images by file names less their suffix" in found.convention
    else:
        check(truth, read_detections(tmp_path / "found.json", truth, "one-based"), labels)


def test_what_ultralytics_writes_for_coco_itself(
    tmp_path: Path, validator: Callable[..., Any]
) -> None:
    truth = annotations_of(tmp_path, truth_of(COCO_IDS, IMAGE_LAYOUTS["COCO"]))
    labels = [0, 11, 40, 79]
    entries = written_by(validator(80, f"data{os.sep}coco{os.sep}val2017.txt"), truth, labels)
    assert {entry["category_id"] for entry in entries} == {1, 13, 46, 90}
    found = read_detections(write(tmp_path, "found.json", entries), truth)
    check(truth, found, labels)
    assert found.convention == "images by file_name, categories by the annotation file's ids"


@pytest.mark.parametrize("val", ["coco/val2017.txt", "data/images"])
def test_coco_ids_that_nothing_tells_apart(
    val: str, tmp_path: Path, validator: Callable[..., Any]
) -> None:
    truth = annotations_of(tmp_path, truth_of(COCO_IDS, IMAGE_LAYOUTS["COCO"]))
    # 18 and 1: class 16 or 17.
    labels = [0, 16] if val.endswith("txt") else [0, 17]
    entries = written_by(validator(80, val.replace("/", os.sep)), truth, labels)
    assert {entry["category_id"] for entry in entries} == {1, 18}
    file = write(tmp_path, "found.json", entries)
    with pytest.raises(InputError, match=r"found\.json.* 1, 18\..*'ids' or 'one-based'"):
        read_detections(file, truth)
    chosen: CategoryIds = "ids" if val.endswith("txt") else "one-based"
    check(truth, read_detections(file, truth, chosen), labels)


def test_coco_ids_that_mean_the_same_either_way(tmp_path: Path) -> None:
    truth = truth_of(COCO_IDS, [(139, "139.jpg")])
    found = read(tmp_path, truth, found_of((139, 1), (139, 11), file_name="139.jpg"))
    assert found.category.tolist() == [0, 10]


@pytest.mark.parametrize(
    ("own", "ids", "named", "category_ids", "expected"),
    [
        # MMDetection's; Ultralytics' beside them begin at 1.
        (range(10), [1, 9], False, "auto", [1, 9]),
        (range(10), [1, 9], True, "auto", [0, 8]),
        (range(10), [1, 10], False, "auto", [0, 9]),
        ((1, 3, 4, 90), [1, 3], False, "auto", [0, 1]),
        ((1, 3, 4, 90), [1, 3], True, "auto", [0, 2]),
        ((1, 3, 4, 90), [1, 90], True, "auto", [0, 3]),
        (COCO_IDS, [12], False, "auto", [11]),
        (COCO_IDS, [3, 80, 26], False, "auto", [2, 79, 25]),
        (COCO_IDS, [90, 13], False, "auto", [79, 11]),
        # YOLOv5's.
        (COCO_IDS, [0, 79], False, "auto", [0, 79]),
        ((1, 2, 3), [0, 2], False, "auto", [0, 2]),
        ((1, 2, 3), [1, 2], False, "zero-based", [1, 2]),
        ((1, 3, 4, 90), [1, 3], False, "one-based", [0, 2]),
        ((1, 3, 4, 90), [1, 3], True, "ids", [0, 1]),
        (COCO_IDS, [18], True, "zero-based", [18]),
    ],
)
def test_readings_of_category_ids(
    own: Sequence[int],
    ids: list[int],
    named: bool,
    category_ids: CategoryIds,
    expected: list[int],
    tmp_path: Path,
) -> None:
    truth = truth_of(list(own), [(5, "5.jpg")])
    name = dict(file_name="5.jpg") if named else {}
    entries = found_of(*((5, each) for each in ids), **name)
    assert read(tmp_path, truth, entries, category_ids).category.tolist() == expected


def test_another_reading_is_told(tmp_path: Path) -> None:
    found = read(tmp_path, truth_of(range(10)), found_of((7, 1), (4, 9)))
    assert found.convention == (
        "images by image_id, categories by the annotation file's ids (would also fit: "
        "categories as 1 to 10 in the order of the annotation file's ids)"
    )
    # Of the same meaning: 1 to 10 are the ids.
    found = read(tmp_path, truth_of(range(1, 11)), found_of((7, 1), (4, 10)))
    assert found.convention == "images by image_id, categories by the annotation file's ids"


@pytest.mark.parametrize(
    ("category_ids", "ids", "message"),
    [
        (
            "auto",
            [1, 95, 0],
            r"found 0, 1, 95\. .*names: 1 'class 1', 3 'class 3'; tried .*1 to 2",
        ),
        (
            "ids",
            [1, 2],
            r"found 1, 2\. .*names: 1 'class 1', 3 'class 3'; tried [^;]*file's ids\.",
        ),
        ("one-based", [0], r"found 0\. .*tried categories as 1 to 2 in"),
        ("zero-based", [2], r"found 2\. .*tried categories as 0 to 1 in"),
        ("auto", [10**300], r"fit .*truth\.json, found 10+\.\.\.0+\. "),
        ("coco", [1], r"category_ids: expected one of auto, ids, .*got 'coco'"),
    ],
)
def test_categories_that_do_not_fit(
    category_ids: CategoryIds, ids: list[int], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, truth_of((1, 3)), found_of(*((7, each) for each in ids)), category_ids)


def test_long_lists_of_categories_are_shortened(tmp_path: Path) -> None:
    entries = found_of(*((7, each) for each in range(50, 99)))
    with pytest.raises(InputError, match=r"68, 69, \.\.\. \(49 in all\).*, \.\.\. \(80 in all\)"):
        read(tmp_path, truth_of(COCO_IDS), entries)


@pytest.mark.parametrize(
    ("images", "entries", "expected", "words"),
    [
        # Names decide, with or without folders and of either kind of slash, over what ids say.
        ([(1, "a.jpg"), (2, "b.jpg")], [(1, "b.jpg"), (2, "a.jpg")], [1, 0], "by file_name"),
        ([(1, "v\\a.jpg"), (2, "v/b.jpg")], [(1, "w/b.jpg"), (2, "a.jpg")], [1, 0], "by file_name"),
        # Names that two images share decide nothing; ids that say more than they do.
        ([(1, "v/a.jpg"), (2, "w/a.jpg")], [(2, "a.jpg"), (1, "a.jpg")], [1, 0], "by image_id"),
        # The annotations' images were converted.
        ([(1, "07.png"), (2, "1.png")], [(1, "1.jpg"), (7, "07.jpg")], [1, 0], "less their suffix"),
        # Some have no name, or no text for one.
        ([(1, "2.jpg"), (2, "1.jpg")], [(1, "1.jpg"), (2, None)], [0, 1], "by image_id"),
        ([(1, "2.jpg"), (2, "1.jpg")], [(1, 5), (2, "")], [0, 1], "by image_id"),
        ([(1, ""), (2, "1.jpg")], [(2, ""), (1, "")], [1, 0], "by image_id"),
        # More digits than Python takes for a number, and a digit that it does not take.
        ([(1, "9" * 5000 + ".jpg"), (2, "²")], [("9" * 5000, DROP), ("²", DROP)], [0, 1], "suffix"),
        # LVIS has no names.
        ([(139, ""), (285, "")], [(285, "0285.jpg"), (139, "0139.jpg")], [1, 0], "by image_id"),
        # Strings as older YOLOs write them, and numbers that are no ids.
        ([(1, "a.b.jpg"), (2, "07.jpg")], [("07", DROP), ("a.b", DROP)], [1, 0], "less their"),
        ([(1, "x/9.jpg"), (2, "07.jpg")], [(7, DROP), (9, DROP)], [1, 0], "less their suffix"),
    ],
)
def test_readings_of_images(
    images: list[tuple[int, str]],
    entries: list[tuple[int | str, Any]],
    expected: list[int],
    words: str,
    tmp_path: Path,
) -> None:
    content = [
        {**found_of((each, 1))[0], **({} if name is DROP else {"file_name": name})}
        for each, name in entries
    ]
    found = read(tmp_path, truth_of(images=images), content)
    assert found.image.tolist() == expected
    assert words in found.convention


@pytest.mark.parametrize(
    ("images", "entries", "message"),
    [
        (
            [(1, "a.jpg"), (2, "b.jpg")],
            [(1, None), (8, None), (9, None)],
            r"detections\[1\].*truth\.json, found 8\. .*detections: 1, 8, 9, of which 2 unknown; "
            r"of the annotation file: 1, 2; its file names: 'a\.jpg', 'b\.jpg'",
        ),
        # Taken for ids they would be of other images.
        (
            [(1, "a.jpg"), (2, "b.jpg")],
            [(1, "1.jpg"), (2, "2.jpg")],
            r"detections\[0\].*found 1 and the file_name '1\.jpg', which none of them have",
        ),
        (
            [(1, "v/1.jpg"), (2, "w/1.jpg")],
            [(1, "1.jpg")],
            r"found 1 and the file_name '1\.jpg', which 2 of them have.*take file_name out",
        ),
        ([("a", "x"), ("b", "y")], [("c", None)], r"found 'c'\. .*file: 'a', 'b'; .*'x', 'y'"),
    ],
)
def test_images_that_are_unknown(
    images: list[tuple[int | str, str]],
    entries: list[tuple[int | str, str | None]],
    message: str,
    tmp_path: Path,
) -> None:
    content = [
        {**found_of((each, 1))[0], **({} if name is None else {"file_name": name})}
        for each, name in entries
    ]
    with pytest.raises(InputError, match=message):
        read(tmp_path, truth_of(images=images), content)


# Files that are something else.


def test_files_that_are_missing(tmp_path: Path) -> None:
    for missing in (tmp_path / "none.json", tmp_path, tmp_path / "a\0b"):
        with pytest.raises(
            InputError, match=r"expected a COCO annotation file, (but .*cannot be|found a folder)"
        ):
            read_annotations(missing)
    with pytest.raises(InputError, match=r"none\.json: expected a list of det.*No such file"):
        read_detections(tmp_path / "none.json", annotations_of(tmp_path))


BAD_BYTES = [
    (b"", r"not JSON: .*line 1 column 1"),
    (json.dumps(truth_of()).encode()[:-9], r"not JSON: .*cut short"),
    (json.dumps(found_of((7, 1))).encode()[:-9], r"not JSON: .*cut short"),
    (b"images: 3", r"not JSON"),
    (b'{"caf\xe9": 1}', r"in UTF-8.* at position 5"),
    (json.dumps([]).encode("utf-16"), r"in UTF-8"),
    (b"[" * 200_000, r"too deep"),
    (b"[" + b"7" * 5000 + b"]", r"not JSON: .*4300 digits"),
]


@pytest.mark.parametrize(("content", "message"), BAD_BYTES)
def test_files_that_are_not_json(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"bad\.json: expected a COCO ann.* {message}"):
        read_annotations(file)
    with pytest.raises(InputError, match=rf"bad\.json: expected a list of detect.* {message}"):
        read_detections(file, annotations_of(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (found_of((7, 1)), "found a list. .*swapped"),
        ([], "found a list. .*swapped"),
        ([1, 2], "found a list. .*right file"),
        (5, "found 5"),
        (None, "found None"),
        ("text", "found 'text'"),
        ({}, "found no images and no annotations and no categories"),
        (dict(images=[], categories=[]), "found no annotations, but the keys 'images', 'cat"),
        (dict(truth_of(), images=None), "expected a list of images, found null"),
        (dict(truth_of(), images={}), "expected a list of images, found an object"),
        (dict(truth_of(), images=[]), "has no images"),
        (dict(truth_of(), categories=[]), "has no categories"),
        (dict(truth_of(), categories="cat"), "list of categories, found a string"),
        (dict(truth_of(), annotations=[]), "has no boxes: nothing to evaluate against"),
        (dict(truth_of(), annotations=[dict(id=1), dict(bbox=[])]), "has no boxes.* 2 without"),
        (dict(truth_of(), annotations=[[], 5, {}]), r"annotations\[0\]: .*a list \(and 1 more\)"),
    ],
)  # fmt: skip
def test_annotation_files_that_are_something_else(
    content: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=rf"bad\.json: .*{message}"):
        read_annotations(write(tmp_path, "bad.json", json.dumps(content)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (truth_of(), "found an object. .*swapped"),
        (dict(detections=[]), "found an object with the keys 'detections'"),
        (7.5, "found the value 7.5"),
        (True, "found the value True"),
        ([*found_of((7, 1)), None, 3], r"detections\[1\]: expected an object, found null \(and 1"),
    ],
)
def test_detection_files_that_are_something_else(
    content: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=rf"found\.json: .*{message}"):
        read(tmp_path, truth_of(), content)


# Values that are wrong.

NUMBERS: list[tuple[Any, str]] = [
    (DROP, "nothing"),
    (None, "None"),
    ("3", "'3'"),
    (True, "True"),
    ([1], r"\[1\]"),
    (-0.5, r"-0\.5"),
    (math.nan, "nan"),
    (math.inf, "inf"),
    (10**400, r"10+\.\.\.0+"),
]
BOXES: list[tuple[Any, str]] = [
    (DROP, "nothing"),
    (None, "None"),
    ("1 2 3 4", "'1 2 3 4'"),
    ({"x": 1}, r"\{'x': 1\}"),
    ([1, 2, 3], r"\[1, 2, 3\]"),
    ([], r"\[\]"),
    ([1, 2, 3, 4, 5], r"\[1, 2, 3, 4, 5\]"),
    ([1, 2, "3", 4], r"\[1, 2, '3', 4\]"),
    ([1, True, 3, 4], r"\[1, True, 3, 4\]"),
    ([1, 2, 3, None], r"\[1, 2, 3, None\]"),
    ([1, 2, [3], 4], r"\[1, 2, \[3\], 4\]"),
    ([math.nan, 2, 3, 4], r"\[nan, 2, 3, 4\]"),
    ([1, -math.inf, 3, 4], r"\[1, -inf, 3, 4\]"),
    ([1, 2, -3, 4], r"\[1, 2, -3, 4\]"),
    ([1, 2, 3, -0.01], r"\[1, 2, 3, -0\.01\]"),
    ([10**400, 2, 3, 4], r"\[10+\.\.\.0+, 2, 3, 4\]"),
    ([1, 2, 1e300, 4], r"\[1, 2, 1e\+300, 4\]"),
]
NAMES: list[tuple[Any, str]] = [
    (5, "5"),
    (None, "None"),
    ("a\0b", r"'a\\x00b'"),
    ("\ud800", r"'\\ud800'"),
]
INTEGERS: list[tuple[Any, str]] = [
    (DROP, "nothing"), (None, "None"), (1.0, r"1\.0"), (True, "True"), ([], r"\[\]"), ({}, r"\{\}")
]  # fmt: skip

BAD_ANNOTATIONS = [
    *(("images", "id", value, found) for value, found in INTEGERS),
    ("images", "id", "text", "'text'"),  # the others are numbers
    ("images", "id", 7, "7"),  # the first one's
    *(("images", "file_name", value, found) for value, found in NAMES),
    *(("categories", "id", value, found) for value, found in [*INTEGERS, ("2", "'2'"), (1, "1")]),
    *(("categories", "name", value, found) for value, found in [*NAMES, (DROP, "nothing")]),
    ("categories", "name", "class 1", "'class 1'"),
    *(("annotations", "id", value, found) for value, found in [*INTEGERS, (10, "10")]),
    *(("annotations", "image_id", value, found) for value, found in [*INTEGERS, (8, "8")]),
    *(("annotations", "category_id", value, found) for value, found in [*INTEGERS, (9, "9")]),
    ("annotations", "category_id", "1", "'1'"),
    *(("annotations", "bbox", value, found) for value, found in BOXES),
    *(("annotations", "area", value, found) for value, found in NUMBERS[1:]),
    *(("annotations", "iscrowd", value, found) for value, found in [*INTEGERS[1:3], ("0", "'0'")]),
    ("annotations", "iscrowd", 2, "2"),
]
BAD_DETECTIONS = [
    *(("image_id", value, found) for value, found in INTEGERS),
    *(("category_id", value, found) for value, found in [*INTEGERS, ("2", "'2'")]),
    *(("score", value, found) for value, found in NUMBERS),
    *(("bbox", value, found) for value, found in BOXES),
]


def put(entry: dict[str, Any], key: str, value: Any) -> None:
    if value is DROP:
        del entry[key]
    else:
        entry[key] = value


@pytest.mark.parametrize(("place", "key", "value", "found"), BAD_ANNOTATIONS)
def test_values_of_annotation_files(
    place: str, key: str, value: Any, found: str, tmp_path: Path
) -> None:
    content = copy.deepcopy(truth_of())
    put(content[place][1], key, value)
    message = rf"truth\.json: {place}\[1\]: expected '{key}' to be .*, found {found}\. [A-Z]"
    with pytest.raises(InputError, match=message):
        annotations_of(tmp_path, content)


@pytest.mark.parametrize(("key", "value", "found"), BAD_DETECTIONS)
def test_values_of_detection_files(key: str, value: Any, found: str, tmp_path: Path) -> None:
    content = found_of((7, 1), (4, 2), (7, 3), (4, 3))
    put(content[1], key, value)
    put(content[3], key, value)
    message = (
        rf"found\.json: detections\[1\]: expected '{key}' to be .*, found {found} "
        r"\(and 1 more\)\. [A-Z]"
    )
    with pytest.raises(InputError, match=message):
        read(tmp_path, truth_of(), content)


def test_unknown_ids_of_annotations_show_the_known(tmp_path: Path) -> None:
    content = truth_of()
    content["annotations"][2]["image_id"] = "7"
    with pytest.raises(InputError, match=r"in the file \(4, 7\), found '7'\. "):
        annotations_of(tmp_path, content)


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_image_ids_that_no_file_can_hold(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"images\[1\]: expected 'id' to be plain text"):
        annotations_of(tmp_path, truth_of(images=[("a", "a.jpg"), (name, "b.jpg")]))


@pytest.mark.parametrize("bbox", [DROP, []])
def test_results_of_segmentation_have_no_box(bbox: Any, tmp_path: Path) -> None:
    entries = found_of((7, 1), segmentation=dict(size=[48, 64], counts="x"))
    put(entries[0], "bbox", bbox)
    with pytest.raises(InputError, match=r"'bbox' to be .*Only boxes are evaluated"):
        read(tmp_path, truth_of(), entries)


def test_nan_beside_what_is_read_is_no_fault(tmp_path: Path) -> None:
    found = read(tmp_path, dict(truth_of(), info=math.nan), found_of((7, 1), loss=math.inf))
    assert len(found) == 1
