"""Which image and which category the ids of a detection file mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mmkd.errors import InputError
from mmkd.evaluation.coco_boxes import Annotations
from mmkd.json_records import listed, shown

__all__ = ["DOUBT", "CategoryIds", "find_categories", "find_images", "repeat_names"]

# Begins what a reading says of others that fit the file as well, and differ.
DOUBT = "would also fit"
CategoryIds = Literal["auto", "ids", "zero-based", "one-based"]
# COCO's 80 categories, whose ids leave ten numbers out.
_COCO_IDS = sorted({*range(1, 91)} - {12, 26, 29, 30, 45, 66, 68, 69, 71, 83})


@dataclass(frozen=True)
class _Reading:
    """A way to read ids.

    Args:
        words: For people.
        table: Indices by id.
    """

    words: str
    table: Mapping[Any, int]

    def fits(self, ids: set[Any]) -> bool:
        return ids <= self.table.keys()

    def agrees(self, other: _Reading, ids: set[Any]) -> bool:
        return all(self.table[each] == other.table[each] for each in ids)

    def indices(self, ids: Sequence[Any]) -> NDArray[np.int64]:
        return np.fromiter(map(self.table.__getitem__, ids), np.int64, len(ids))


def repeat_names(ids: Sequence[int | str], names: Sequence[str] | None) -> bool:
    """Whether image ids say no more than the file names beside them, as Ultralytics writes them:
    the name less its suffix, as a number where it is one."""
    if names is None:
        return False
    return all(each == _stem_id(name) for each, name in set(zip(ids, names, strict=True)))


def find_images(
    file: Path, ids: Sequence[int | str], names: Sequence[str] | None, annotations: Annotations
) -> tuple[NDArray[np.int64], str]:
    """Finds the images that detections mean.

    Args:
        file: The detections', for messages.
        ids: ``[n]``, their ``image_id``.
        names: ``[n]``, their ``file_name``; None where not all have one.
        annotations: Whose images they are.

    Returns:
        ``[n]``, indices of images, and how they were found, for people.

    Raises:
        InputError: There are others than those of the annotations.
    """
    own = {each: index for index, each in enumerate(annotations.image_ids)}
    by_id = _Reading("images by image_id", own)
    by_stem = _Reading("images by file names less their suffix", _by_stem(annotations.file_names))
    readings = [by_id, by_stem]
    if names is not None:
        base_names = _base_names(names)
        by_name = _Reading("images by file_name", _by_base_name(annotations.file_names))
        if by_name.fits(set(base_names)):
            return by_name.indices(base_names), by_name.words
        # Ids that only repeat names which are not found mean nothing as ids. An annotation file
        # without names, as LVIS', leaves nothing but the ids.
        if repeat_names(ids, names) and any(annotations.file_names):
            readings = [by_stem]
    found = set(ids)
    fitting = [reading for reading in readings if reading.fits(found)]
    if not fitting:
        raise _unknown_images(file, ids, names, readings, annotations)
    return fitting[0].indices(ids), _with_doubt(fitting, found)


def find_categories(
    file: Path,
    ids: Sequence[int],
    annotations: Annotations,
    category_ids: CategoryIds,
    from_ultralytics: bool,
) -> tuple[NDArray[np.int64], str]:
    """Finds the categories that detections mean.

    Args:
        file: The detections', for messages.
        ids: ``[n]``, their ``category_id``.
        annotations: Whose categories they are.
        category_ids: How to read them.
        from_ultralytics: Whether the file looks like Ultralytics'.

    Returns:
        ``[n]``, indices of categories, and how they were found, for people.

    Raises:
        InputError: They do not fit, or fit in two ways of which neither is likelier.
    """
    readings = _category_readings(annotations)
    if category_ids != "auto":
        if category_ids not in readings:
            allowed = ", ".join(get_args(CategoryIds))
            raise InputError(f"category_ids: expected one of {allowed}, got {category_ids!r}")
        readings = {category_ids: readings[category_ids]}
    elif from_ultralytics:
        order = ("one-based", "ids", "zero-based")
        readings = {name: readings[name] for name in order}
    found = set(ids)
    fitting = {name: reading for name, reading in readings.items() if reading.fits(found)}
    if not fitting:
        raise _unknown_categories(file, found, readings, annotations)
    if from_ultralytics and annotations.category_ids == _COCO_IDS:
        _check_one_reading(file, found, fitting)
    chosen = list(fitting.values())
    return chosen[0].indices(ids), _with_doubt(chosen, found)


def _category_readings(annotations: Annotations) -> dict[str, _Reading]:
    count = len(annotations.category_ids)
    own = {each: index for index, each in enumerate(annotations.category_ids)}
    return {
        "ids": _Reading("categories by the annotation file's ids", own),
        "one-based": _Reading(
            f"categories as 1 to {count} in the order of the annotation file's ids",
            {index + 1: index for index in range(count)},
        ),
        "zero-based": _Reading(
            f"categories as 0 to {count - 1} in the order of the annotation file's ids",
            {index: index for index in range(count)},
        ),
    }


def _check_one_reading(file: Path, ids: set[int], fitting: Mapping[str, _Reading]) -> None:
    """Ultralytics writes COCO's own ids if it takes the data set for COCO itself, else 1 to 80."""
    if "ids" not in fitting or "one-based" not in fitting:
        return
    if not fitting["ids"].agrees(fitting["one-based"], ids):
        raise InputError(
            f"{file}: expected category ids that can be read in but one way, found "
            f"{listed(sorted(ids))}. Ultralytics writes COCO's own ids if it takes the data set "
            "for COCO itself, else 1 to 80, and these fit both. Say which by --category-ids: 'ids' "
            "or 'one-based'."
        )


def _with_doubt(fitting: Sequence[_Reading], ids: set[Any]) -> str:
    """The words of the first reading, and of those that would fit as well but differ."""
    first = fitting[0]
    others = [each.words for each in fitting[1:] if not first.agrees(each, ids)]
    return f"{first.words} ({DOUBT}: {'; '.join(others)})" if others else first.words


def _unknown_images(
    file: Path,
    ids: Sequence[int | str],
    names: Sequence[str] | None,
    readings: Sequence[_Reading],
    annotations: Annotations,
) -> InputError:
    unknown = {each for each in ids if each not in readings[0].table}
    wrong = next(index for index, each in enumerate(ids) if each in unknown)
    entry = shown(ids[wrong])
    if names is not None:
        own = _base_names(annotations.file_names).count(_path(names[wrong]).name)
        entry += f" and the file_name {shown(names[wrong])}, which {own or 'none'} of them have"
    remedy = (
        "Give the annotation file of the images on which these detections were made."
        if names is None
        else "Give the annotation file of the images on which these detections were made; if "
        "image_id holds its ids, take file_name out of the detections."
    )
    return InputError(
        f"{file}: detections[{wrong}]: expected 'image_id' to be of an image of "
        f"{annotations.file}, found {entry}. Image ids of the detections: "
        f"{listed(dict.fromkeys(ids), 5)}, of which {len(unknown)} unknown; of the annotation "
        f"file: {listed(annotations.image_ids, 5)}; its file names: "
        f"{listed(annotations.file_names, 5)}. {remedy}"
    )


def _unknown_categories(
    file: Path, ids: set[int], readings: Mapping[str, _Reading], annotations: Annotations
) -> InputError:
    expected = [
        f"{shown(each)} {shown(name)}"
        for each, name in zip(annotations.category_ids, annotations.category_names, strict=True)
    ]
    count = len(expected)
    if count > 12:
        expected = [*expected[:12], f"... ({count} in all)"]
    ways = " or ".join(reading.words for reading in readings.values())
    return InputError(
        f"{file}: expected category ids that fit {annotations.file}, found "
        f"{listed(sorted(ids), 20)}. That file's ids and names: {', '.join(expected)}; tried "
        f"{ways}. Give the annotation file of the detector's categories, or other --category-ids."
    )


def _by_stem(names: Sequence[str]) -> dict[int | str, int]:
    """Indices by name less suffix, both as it is and as Ultralytics writes it."""
    texts = _unambiguous(_path(name).stem for name in names)
    return {**texts, **_unambiguous(_stem_id(name) for name in names)}


def _by_base_name(names: Sequence[str]) -> dict[str, int]:
    return _unambiguous(_base_names(names))


def _base_names(names: Sequence[str]) -> list[str]:
    base = {name: _path(name).name for name in set(names)}
    return [base[name] for name in names]


def _path(name: str) -> PurePosixPath:
    return PurePosixPath(name.replace("\\", "/"))


def _stem_id(name: str) -> int | str:
    stem = _path(name).stem
    try:
        return int(stem) if stem.isdecimal() else stem
    except ValueError:  # more digits than Python reads
        return stem


def _unambiguous(keys: Iterable[Hashable]) -> dict[Any, int]:
    """Indices by key, without keys that occur twice and without ``''``."""
    keys = list(keys)
    counts = Counter(keys)
    return {key: index for index, key in enumerate(keys) if key != "" and counts[key] == 1}
