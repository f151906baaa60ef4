"""Annotation and detection files in COCO's formats, checked, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmkd.errors import InputError
from mmkd.evaluation.coco_boxes import Annotations, Detections
from mmkd.evaluation.coco_ids import CategoryIds, find_categories, find_images, repeat_names
from mmkd.json_records import Records, listed, read_json, shown

__all__ = ["Annotations", "CategoryIds", "Detections", "read_annotations", "read_detections"]

_LISTS = ("images", "annotations", "categories")


def read_annotations(file: str | Path) -> Annotations:
    """Reads a COCO annotation file.

    Asked for are what its boxes' evaluation needs, and names that are unique: ``id`` of images,
    all whole numbers or all strings, and their ``file_name`` where they have one; ``id`` and
    ``name`` of categories; ``id``, ``image_id``, ``category_id`` and ``bbox`` of annotations,
    their ``area`` (width times height where there is none) and ``iscrowd`` (0 where there is
    none). ``ignore`` has no meaning, as in pycocotools. A box may lie outside its image or have no
    area.

    Args:
        file: In JSON.

    Raises:
        InputError: It is missing or something else, has no boxes, or entries that are wrong.
    """
    file = Path(file)
    expected = "a COCO annotation file"
    content, digest = read_json(file, expected)
    _check_annotation_file(file, content, expected)
    images, annotations, categories = (Records(file, key, content[key]) for key in _LISTS)
    image_ids, file_names = _images(images)
    category_ids, category_names = _categories(categories)
    if not any(entry.get("bbox") for entry in annotations.entries):
        raise InputError(
            f"{file}: has no boxes: nothing to evaluate against. Expected annotations with 'bbox', "
            f"found {len(annotations)} without. Give the file that has the objects' boxes."
        )
    _check_ids(annotations)
    boxes = annotations.boxes("An object without a box cannot be evaluated: add the boxes.")
    return Annotations(
        file=file,
        digest=digest,
        image_ids=image_ids,
        file_names=file_names,
        category_ids=category_ids,
        category_names=category_names,
        image=_indices(annotations, "image_id", image_ids),
        category=_indices(annotations, "category_id", category_ids),
        boxes=boxes,
        areas=_areas(annotations, boxes),
        crowd=np.array(annotations.flags("iscrowd"), bool),
    )


def read_detections(
    file: str | Path, annotations: Annotations, category_ids: CategoryIds = "auto"
) -> Detections:
    """Reads a file of detections in COCO's result format: ``[{"image_id": ..., "category_id": ...,
    "bbox": [x, y, width, height], "score": ...}, ...]``.

    It may be empty. A score may exceed 1, x and y may be negative. Trainers write other ids than
    the annotation file's, so that a file is read as a whole in the first of these ways that fits
    all of its entries:

    - Images: where every entry has a ``file_name`` (Ultralytics), by it, folders aside, if it is
      of exactly one image; else by ``image_id`` as the annotation file's id; else by ``image_id``
      as the name of an image file less its suffix, as a string or a number (Ultralytics, YOLOv5).
      Where ``image_id`` only repeats a ``file_name`` that is not found, it is not taken for an id.
    - Categories: as the annotation file's ids (MMDetection); as 1 to n in the order of these ids
      (Ultralytics); as 0 to n-1 in that order (YOLOv5). If the file looks like Ultralytics', its
      ``image_id`` repeating its ``file_name``, 1 to n comes first. Ultralytics writes COCO's own
      ids instead where it takes the data set for COCO itself: on COCO's 80 categories a file that
      fits both, and differently, is an error.

    Args:
        file: In JSON.
        annotations: Of the same images.
        category_ids: How to read ``category_id``: ``'ids'`` of the annotation file,
            ``'one-based'`` or ``'zero-based'`` in their order, or ``'auto'`` as above.

    Raises:
        InputError: It is missing or something else, has entries that are wrong, or images or
            categories other than those of the annotations.
    """
    file = Path(file)
    expected = "a list of detections in COCO's result format"
    content, _ = read_json(file, expected)
    if isinstance(content, dict):
        raise InputError(f"{file}: expected {expected}, found an object{_its_keys(content)}")
    entries = Records(file, "detections", content)
    # Ultralytics writes numbers for some images and strings for others.
    ids = entries.values("image_id", {int, str}, "a whole number or a string")
    own_categories = entries.values("category_id", {int}, "a whole number")
    scores = entries.numbers("score")
    boxes = entries.boxes(_without_box(entries))
    names = _file_names(entries)
    image, images_read = find_images(file, ids, names, annotations)
    category, categories_read = find_categories(
        file, own_categories, annotations, category_ids, repeat_names(ids, names)
    )
    convention = f"{images_read}, {categories_read}" if len(entries) else "no detections"
    return Detections(file, image, category, boxes, scores, convention)


def _check_annotation_file(file: Path, content: Any, expected: str) -> None:
    if isinstance(content, list):
        has_scores = any(isinstance(entry, dict) and "score" in entry for entry in content[:1])
        hint = (
            "It looks like a detection file: are the two files swapped?"
            if has_scores or not content
            else "Check that it is the right file."
        )
        raise InputError(f"{file}: expected {expected}, found a list. {hint}")
    if not isinstance(content, dict):
        raise InputError(
            f"{file}: expected {expected}, found {shown(content)}. Check that it is the right file."
        )
    missing = [key for key in _LISTS if key not in content]
    if missing:
        raise InputError(
            f"{file}: expected {expected} with the lists {', '.join(_LISTS)}, found no "
            f"{' and no '.join(missing)}, but the keys {listed(content)}. Check that it is the "
            "right file."
        )


def _its_keys(content: dict[str, Any]) -> str:
    if any(key in content for key in _LISTS):
        return ". It looks like an annotation file: are the two files swapped?"
    return f" with the keys {listed(content)}. Check that it is the right file."


def _images(images: Records) -> tuple[list[Any], list[str]]:
    ids = images.values("id", {int, str}, "a whole number or a string")
    if not ids:
        raise InputError(f"{images.file}: has no images. Give the file that lists them.")
    wrong = [index for index, each in enumerate(ids) if type(each) is not type(ids[0])]
    if wrong:
        expected = f"of one type in all entries, as {shown(ids[0])} in the first"
        raise images.error(wrong, "id", expected, "Write all of them in the same way.")
    if isinstance(ids[0], str):
        images.texts("id")
    images.unique("id", ids, "Give every image its own id.")
    names = images.texts("file_name", default="")
    order = sorted(range(len(ids)), key=ids.__getitem__)
    return [ids[index] for index in order], [names[index] for index in order]


def _categories(categories: Records) -> tuple[list[int], list[str]]:
    ids: list[int] = categories.values("id", {int}, "a whole number")
    if not ids:
        raise InputError(f"{categories.file}: has no categories. Give the file that lists them.")
    categories.unique("id", ids, "Give every category its own id.")
    names = categories.texts("name")
    categories.unique("name", names, "Give every category its own name.")
    order = sorted(range(len(ids)), key=ids.__getitem__)
    return [ids[index] for index in order], [names[index] for index in order]


def _check_ids(annotations: Records) -> None:
    ids = annotations.values("id", {int, str}, "a whole number or a string")
    annotations.unique("id", ids, "Give every annotation its own id.")


def _indices(annotations: Records, key: str, ids: Sequence[int | str]) -> NDArray[np.int64]:
    """Of the images or categories that annotations name."""
    table = {each: index for index, each in enumerate(ids)}
    values = annotations.values(key, {int, str}, "an id")
    indices = np.array([table.get(value, -1) for value in values], np.int64)
    wrong = np.flatnonzero(indices < 0).tolist()
    if wrong:
        expected = f"an id that is in the file ({listed(ids, 6)})"
        raise annotations.error(wrong, key, expected, "Remove these entries or add what they name.")
    return indices


def _areas(annotations: Records, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    products = (boxes[:, 2] * boxes[:, 3]).tolist()
    for entry, product in zip(annotations.entries, products, strict=True):
        entry.setdefault("area", product)
    return annotations.numbers("area")


def _without_box(detections: Records) -> str:
    if any("segmentation" in entry for entry in detections.entries):
        return "Only boxes are evaluated: of masks, give the file of their boxes."
    return "Correct or remove these entries."


def _file_names(detections: Records) -> list[str] | None:
    """Where every entry has one."""
    names: list[Any] = [entry.get("file_name") for entry in detections.entries]
    return names if set(map(type, names)) == {str} else None
