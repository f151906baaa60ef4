"""Mutated annotation and detection files: arrays that hold together, or an error with the file."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mmkd.errors import InputError
from mmkd.evaluation.coco_files import Annotations, Detections, read_annotations, read_detections

TRUTH: dict[str, Any] = dict(
    images=[dict(id=3, file_name="a/07.jpg"), dict(id=5, file_name="b.jpg"), dict(id=7)],
    categories=[dict(id=1, name="cat"), dict(id=3, name="dog"), dict(id=90, name="cow")],
    annotations=[
        dict(id=1, image_id=3, category_id=1, bbox=[1, 2, 3.5, 4], area=9.5, iscrowd=0),
        dict(id=2, image_id=5, category_id=90, bbox=[-1.5, 0, 0, 4], iscrowd=1),
        dict(id=3, image_id=3, category_id=3, bbox=[1, 2, 3.5, 4], segmentation=[[1, 2, 3]]),
    ],
)
MMDETECTION: list[dict[str, Any]] = [
    dict(image_id=3, category_id=1, bbox=[1, 2, 3.5, 4], score=0.5),
    dict(image_id=7, category_id=90, bbox=[-1.5, 0, 0, 4], score=1),
]
ULTRALYTICS: list[dict[str, Any]] = [
    dict(image_id=7, file_name="07.jpg", category_id=1, bbox=[1, 2, 3.5, 4], score=0.5),
    dict(image_id="b", file_name="b.jpg", category_id=3, bbox=[-1.5, 0, 0, 4], score=1),
]

VALUES = st.one_of(
    st.sampled_from(
        [
            None, True, False, 0, 1, 2, 3, 5, 7, 90, -1, 0.5, -0.0, 1e300, -1e308, 10**30, 10**400,
            float("nan"), float("inf"), float("-inf"), "", "7", "07.jpg", "b.jpg", "\0", "\ud800",
            "²", "9" * 5000 + ".jpg", "[/bold]", [], {}, [1, 2, 3, 4], [[1, 2, 3, 4]], [{}],
            {"id": 1},
        ]
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
        ),
        max_leaves=6,
    ),
)  # fmt: skip


def places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every container and key below which a value lies."""
    keys = content if isinstance(content, dict) else range(len(content))
    for key in list(keys):
        yield content, key
        if isinstance(content[key], dict | list):
            yield from places(content[key])


@st.composite
def mutated(draw: st.DrawFn, content: Any) -> bytes:
    """A JSON text after up to three changes of its content, sometimes cut or with other bytes."""
    root = [copy.deepcopy(content)]
    for _ in range(draw(st.integers(0, 3))):
        container, key = draw(st.sampled_from(list(places(root))))
        change = draw(st.sampled_from(["replace", "replace", "drop", "double", "nest", "rename"]))
        if change == "drop" and container is not root:
            del container[key]
        elif change == "double" and isinstance(container, list) and container is not root:
            container.insert(0, copy.deepcopy(container[key]))
        elif change == "nest":
            container[key] = [container[key]]
        elif change == "rename" and isinstance(container, dict):
            container[draw(st.sampled_from(["file_name", "segmentation", "x"]))] = container.pop(
                key
            )
        else:
            container[key] = copy.deepcopy(draw(VALUES))
    text = json.dumps(root[0], ensure_ascii=draw(st.booleans()))
    raw = bytearray(text.encode(errors="surrogatepass"))
    damage = draw(st.sampled_from(["none"] * 6 + ["cut", "flip"]))
    if damage == "cut":
        del raw[draw(st.integers(0, len(raw))) :]
    elif damage == "flip" and raw:
        for _ in range(draw(st.integers(1, 3))):
            raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
    return bytes(raw)


def check_annotations(truth: Annotations) -> None:
    count = len(truth.boxes)
    assert count and truth.boxes.shape == (count, 4)
    assert truth.image.shape == truth.category.shape == truth.crowd.shape == (count,)
    assert len(truth.image_ids) == len(truth.file_names) and len(truth.digest) == 64
    assert truth.image_ids == sorted(set(truth.image_ids))  # type: ignore[type-var]
    assert truth.category_ids == sorted(set(truth.category_ids))
    assert len(truth.category_ids) == len(set(truth.category_names)) == len(truth.category_names)
    for name in [*truth.file_names, *truth.category_names]:
        name.encode()
    assert np.isfinite(truth.areas).all() and (truth.areas >= 0).all()
    assert truth.areas.shape == (count,)
    assert truth.crowd.dtype == np.bool_
    check_boxes(truth, truth)


def check_detections(found: Detections, truth: Annotations) -> None:
    count = len(found)
    assert found.boxes.shape == (count, 4)
    assert found.image.shape == found.category.shape == found.scores.shape == (count,)
    assert np.isfinite(found.scores).all() and (found.scores >= 0).all()
    found.convention.encode()
    check_boxes(found, truth)


def check_boxes(source: Annotations | Detections, truth: Annotations) -> None:
    """On images and categories that there are, with areas that can be computed."""
    assert source.image.dtype == source.category.dtype == np.int64
    assert ((source.image >= 0) & (source.image < len(truth.image_ids))).all()
    assert ((source.category >= 0) & (source.category < len(truth.category_ids))).all()
    assert source.boxes.dtype == np.float64 and np.isfinite(source.boxes).all()
    assert (source.boxes[:, 2:] >= 0).all() and np.isfinite(source.boxes.prod(axis=1)).all()


def check_message(error: InputError, *files: Path) -> None:
    """Names the file, says what was expected, in few words that can be printed."""
    message = str(error)
    assert any(message.startswith(f"{file}: ") for file in files)
    assert "expected" in message or ": has no " in message
    assert message.endswith((".", "?")) and len(message) < 2500
    message.encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def test_without_mutations(folder: Path) -> None:
    file = folder / "whole.json"
    file.write_text(json.dumps(TRUTH))
    truth = read_annotations(file)
    check_annotations(truth)
    for content, images, categories in (
        (MMDETECTION, [0, 2], [0, 2]),
        (ULTRALYTICS, [0, 1], [0, 2]),
    ):
        file.write_text(json.dumps(content))
        found = read_detections(file, truth)
        check_detections(found, truth)
        assert found.image.tolist() == images and found.category.tolist() == categories


@settings(max_examples=500)
@given(raw=mutated(TRUTH))
def test_annotations(folder: Path, raw: bytes) -> None:
    file = folder / "truth.json"
    file.write_bytes(raw)
    try:
        truth = read_annotations(file)
    except InputError as error:
        check_message(error, file)
    else:
        check_annotations(truth)


@settings(max_examples=500)
@given(
    raw=mutated(MMDETECTION) | mutated(ULTRALYTICS) | mutated(TRUTH),
    category_ids=st.sampled_from(["auto", "auto", "ids", "zero-based", "one-based"]),
)
def test_detections(folder: Path, raw: bytes, category_ids: Any) -> None:
    whole, file = folder / "whole.json", folder / "found.json"
    whole.write_text(json.dumps(TRUTH))
    file.write_bytes(raw)
    truth = read_annotations(whole)
    try:
        found = read_detections(file, truth, category_ids)
    except InputError as error:
        check_message(error, file)
    else:
        check_detections(found, truth)


@settings(max_examples=150)
@given(raw=mutated(TRUTH), found_raw=mutated(MMDETECTION) | mutated(ULTRALYTICS))
def test_both(folder: Path, raw: bytes, found_raw: bytes) -> None:
    file, found_file = folder / "truth.json", folder / "found.json"
    file.write_bytes(raw)
    found_file.write_bytes(found_raw)
    try:
        truth = read_annotations(file)
    except InputError:
        assume(False)
    try:
        check_detections(read_detections(found_file, truth), truth)
    except InputError as error:
        check_message(error, found_file)


@settings(max_examples=200)
@given(raw=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_anything(folder: Path, raw: bytes) -> None:
    file = folder / "truth.json"
    file.write_bytes(raw)
    with pytest.raises(InputError) as caught:
        read_annotations(file)
    check_message(caught.value, file)
