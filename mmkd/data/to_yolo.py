"""A COCO-format detection set in the layout that Ultralytics trains on.

Ultralytics' own `convert_coco` (8.4.190) serves COCO itself and little else. For the class it takes
the category id less 1, so that ids 0 and 7 of two categories become -1 and 6, both refused by its
trainer. It writes boxes beyond the border, NaN and unknown categories as they are, stops at a box
of an unknown image, makes no file for an image without boxes, merges `a.jpg` and `a.png` into one
label file, brings no images and no data.yaml along, and counts nothing.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import yaml
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from mmkd.data.image_files import image_size
from mmkd.data.set_folder import SetFolder
from mmkd.errors import InputError, MissingFileError
from mmkd.input_files import read_bytes, real_path
from mmkd.json_records import Records, listed, read_json, shown

__all__ = ["ConversionReport", "SplitReport", "coco_to_yolo"]

SPLITS = ("train", "val", "test")
# What Ultralytics looks for in a folder; it passes over any other file without a word.
SUFFIXES = frozenset(
    [
        ".avif",
        ".bmp",
        ".dng",
        ".heic",
        ".heif",
        ".jp2",
        ".jpeg",
        ".jpg",
        ".mpo",
        ".png",
        ".tif",
        ".tiff",
        ".webp",
    ]
)

_RECIPE = 2  # raised whenever the same source would give other files
_RECORD = "to_yolo.json"
_EXPECTED = "a COCO annotation file"
_ROUNDING = 1e-6  # pixels; shorter lengths come from rounding
_SHOWN = 5  # entries that a message or the table lists

_T = TypeVar("_T")


@dataclass
class SplitReport:
    """What became of one split.

    Every annotation is counted once, in `boxes` or in one of the attributes from `crowd` on.

    Attributes:
        images: images, and as many label files.
        empty: those of them without a box.
        boxes: boxes written.
        clipped: those of them that reached over the border of the image.
        crowd: left out, as `iscrowd` is 1.
        no_area: left out, as they have no area inside the image, or are not finite.
        duplicates: left out, as the image has the same box of the same class already; Ultralytics
            would drop them, with a warning.
        unknown_categories: boxes left out by category id that `categories` does not list.
        unknown_images: boxes left out by image id that `images` does not list.
    """

    images: int = 0
    empty: int = 0
    boxes: int = 0
    clipped: int = 0
    crowd: int = 0
    no_area: int = 0
    duplicates: int = 0
    unknown_categories: Counter[Any] = field(default_factory=Counter)
    unknown_images: Counter[Any] = field(default_factory=Counter)


@dataclass(frozen=True)
class ConversionReport:
    """The file to hand to Ultralytics, and the counts of each split."""

    data_yaml: Path
    splits: dict[str, SplitReport]

    def table(self) -> Table:
        """The counts, one column a split; the caption shows ids that the source does not list."""
        splits = self.splits.values()
        rows = {
            "images": [split.images for split in splits],
            "  of them without a box": [split.empty for split in splits],
            "boxes": [split.boxes for split in splits],
            "  of them clipped to the image": [split.clipped for split in splits],
            "left out: crowd": [split.crowd for split in splits],
            "left out: no area in the image": [split.no_area for split in splits],
            "left out: duplicate": [split.duplicates for split in splits],
            "left out: unknown category": [split.unknown_categories.total() for split in splits],
            "left out: unknown image": [split.unknown_images.total() for split in splits],
        }
        unknown = [
            f"{name}: unknown {kind} ids {_some([f'{id_!r} ({n}x)' for id_, n in ids.items()])}"
            for name, split in self.splits.items()
            for kind, ids in (
                ("category", split.unknown_categories),
                ("image", split.unknown_images),
            )
            if ids
        ]
        # As Text, since an id may hold what rich takes for markup.
        table = Table(caption=Text("\n".join(unknown)) if unknown else None, caption_justify="left")
        table.add_column()
        for name in self.splits:
            table.add_column(name, justify="right")
        for heading, counts in rows.items():
            table.add_row(heading, *map(str, counts))
        return table


@dataclass(frozen=True)
class _Picture:
    source: Path
    place: PurePosixPath  # below images/<split> and, with another suffix, below labels/<split>
    width: int
    height: int


@dataclass(frozen=True)
class _Split:
    """A split in memory; `lines` are those of each picture's label file."""

    categories: list[tuple[int, str]]
    pictures: list[_Picture]
    lines: list[dict[str, None]]
    report: SplitReport


def coco_to_yolo(
    out: str | Path,
    splits: Mapping[str, tuple[str | Path, str | Path]],
    *,
    link: bool = False,
    progress: bool = False,
) -> ConversionReport:
    """Write a COCO-format detection set into the folder `out` as Ultralytics reads it.

    `images/<split>/` holds the images and `labels/<split>/` one text file for each, with a line
    `class centre_x centre_y width height` (in shares of the image's sides) for each box.
    `data.yaml` names the folders relative to itself, so that the set may be moved, and the classes:
    the categories in the order of their ids, which it keeps as `coco_category_ids`.

    Boxes are clipped to the image. Left out are boxes without area there, crowds, duplicates, and
    boxes of a category or an image that the file does not list. Images without a box keep an empty
    label file. Sub-folders in `file_name` are kept, except those called `images`: Ultralytics
    replaces the last such folder of a path by `labels`.

    The source is only read, and checked in full before anything is written. The folder appears only
    once it is complete. One that already holds the conversion of the same annotation files, image
    folders and `link` is kept as it is.

    Args:
        out: the folder to write.
        splits: `train`, `val` and, if wanted, `test`: the annotation file, and the folder in which
            its file names are found.
        link: make symbolic links to the images instead of copies. The set then needs the source to
            stay where it is.
        progress: show progress bars on standard error.

    Raises:
        FileNotFoundError: an annotation file, an images folder or an image is missing.
        FileExistsError: `out` is a file, or holds something other than this very conversion.
        ValueError: a split is missing or unknown; a file is not in COCO's format; the splits
            disagree on the categories; an image cannot be read, has another size than the file
            says (after its EXIF orientation, which Ultralytics follows too), or lies where
            Ultralytics would not find it; two images would share a label file.
    """
    sources = _sources(splits)
    settings = {
        "recipe": _RECIPE,
        "link": link,
        "splits": {
            name: {
                "annotations": hashlib.sha256(read_bytes(file, _EXPECTED)).hexdigest(),
                "images": str(real_path(images)),
            }
            for name, (file, images) in sources.items()
        },
    }
    out = Path(out)
    made = SetFolder(
        out, _RECORD, settings, "the conversion of another source, or of an earlier version"
    )
    held = made.is_made()

    read = {name: _read(name, *source, progress) for name, source in sources.items()}
    _check_categories({sources[name][0]: split.categories for name, split in read.items()})
    report = ConversionReport(
        out / "data.yaml", {name: split.report for name, split in read.items()}
    )
    if held:
        return report

    with made.making() as folder:
        for name, split in read.items():
            _write_split(folder, name, split, link, progress)
        content = _data_yaml(list(read), read["train"].categories)
        (folder / "data.yaml").write_text(content, encoding="utf-8")
    return report


def _sources(
    splits: Mapping[str, tuple[str | Path, str | Path]],
) -> dict[str, tuple[Path, Path]]:
    """Annotation file and images folder of each split, in the order of `SPLITS`; both exist."""
    if not {"train", "val"} <= set(splits) <= set(SPLITS):
        raise InputError(
            "splits must name train and val, which Ultralytics cannot do without, and may name "
            f"test; got {', '.join(splits) or 'none'}"
        )
    sources = {
        name: (Path(splits[name][0]), Path(splits[name][1])) for name in SPLITS if name in splits
    }
    for name, (file, images) in sources.items():
        if not file.exists():
            raise MissingFileError(f"{name}: there is no annotation file {file}")
        if not images.is_dir():
            raise MissingFileError(f"{name}: there is no images folder {images}")
    return sources


# Reading


def _read(name: str, annotations: Path, folder: Path, progress: bool) -> _Split:
    """One split, checked; its boxes are clipped and in shares of the image's sides."""
    content = _load(annotations)
    categories = _categories(content["categories"])
    pictures = _pictures(name, content["images"], folder, progress)
    labels = {id_: label for label, (id_, _) in enumerate(categories)}
    lines: dict[Any, dict[str, None]] = {id_: {} for id_ in pictures}
    report = SplitReport(images=len(pictures))
    entries = content["annotations"]
    ids = [entries.values(k, {int, str}, "an id") for k in ("image_id", "category_id")]
    found = zip(entries.entries, *ids, entries.flags("iscrowd"), strict=True)
    for annotation, image_id, category_id, is_crowd in found:
        box = _numbers(annotation.get("bbox"), annotation, annotations)
        if image_id not in pictures:
            report.unknown_images[image_id] += 1
        elif category_id not in labels:
            report.unknown_categories[category_id] += 1
        elif is_crowd:
            report.crowd += 1
        else:
            picture = pictures[image_id]
            size = picture.width, picture.height
            corners = _clip(box, *size)
            if corners is None:
                report.no_area += 1
                continue
            line = _line(labels[category_id], corners, *size)
            if line in lines[image_id]:
                report.duplicates += 1
                continue
            lines[image_id][line] = None
            report.boxes += 1
            report.clipped += _reaches_out(box, *size)
    report.empty = sum(not found for found in lines.values())
    return _Split(categories, list(pictures.values()), list(lines.values()), report)


def _load(path: Path) -> dict[str, Records]:
    """The file's lists, each of objects."""
    content, _ = read_json(path, _EXPECTED)
    lists = ("images", "annotations", "categories")
    for key in lists:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise InputError(
                f"{path} has no list {key!r}; expected {_EXPECTED}: an object with the "
                "lists 'images', 'annotations' and 'categories'"
            )
    return {key: Records(path, key, content[key]) for key in lists}


def _categories(entries: Records) -> list[tuple[int, str]]:
    """Ids and names, in order of id."""
    ids, names = entries.values("id", {int}, "a whole number"), entries.texts("name")
    entries.unique("id", ids, "Give every category its own id.")
    if not ids:
        raise InputError(f"{entries.file} lists no category")
    return sorted(zip(ids, names, strict=True))


def _check_categories(categories: Mapping[Path, list[tuple[int, str]]]) -> None:
    (first, expected), *others = categories.items()
    for path, found in others:
        if found != expected:
            lists = "; ".join(
                f"{file}: {listed((f'{id_} {name}' for id_, name in own), 100)}"
                for file, own in ((first, expected), (path, found))
            )
            raise InputError(f"the splits must list the same categories, by id and name: {lists}")


def _pictures(name: str, entries: Records, folder: Path, progress: bool) -> dict[Any, _Picture]:
    """The listed images by id, all of them whole and of the listed size."""
    if not len(entries):
        raise InputError(f"{entries.file} lists no image")
    ids = entries.values("id", {int, str}, "a whole number or a string")
    entries.unique("id", ids, "Give every image its own id.")
    file_names = entries.texts("file_name")
    places = _places(file_names, entries.file)
    pictures: dict[Any, _Picture] = {}
    faults = _Faults()
    found = list(zip(entries.entries, ids, file_names, places, strict=True))
    for entry, id_, file_name, place in _tracked(found, f"{name}: checking", progress):
        source = folder / file_name
        width, height = faults.size_of(source, entry)
        pictures[id_] = _Picture(source, place, width, height)
    faults.check(name, f"of the {len(entries)} images listed in {entries.file}", folder)
    return pictures


@dataclass
class _Faults:
    """What is wrong with images, each as a message shows it."""

    missing: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)

    def size_of(self, file: Path, entry: Mapping[str, Any]) -> tuple[int, int]:
        """Width and height of an image; noted is one that has others than its entry says."""
        name = entry["file_name"]
        try:
            if not file.is_file():
                (self.broken if file.exists() else self.missing).append(name)
                return 0, 0
            size = image_size(file)
        except Exception as error:  # The formats' readers raise anything.
            reason = " ".join(str(error).replace(str(file), "it").split())
            self.broken.append(f"{name} ({reason or type(error).__name__})")
            return 0, 0
        width, height = entry.get("width") or size[0], entry.get("height") or size[1]
        if (width, height) != size:
            said = f"{shown(width)} x {shown(height)}, not {size[0]} x {size[1]}"
            self.resized.append(f"{name} ({said})")
        return size

    def check(self, split: str, count: str, folder: Path) -> None:
        """Raises an error on the first kind of which there are some."""
        if self.missing:
            raise MissingFileError(
                f"{split}: {len(self.missing)} {count} are not in {folder}: "
                f"{_some(self.missing)}; give the folder that their file names start from"
            )
        if self.broken:
            raise InputError(
                f"{split}: {len(self.broken)} {count} cannot be read: {_some(self.broken)}; "
                "replace them, or take them out of the list"
            )
        if self.resized:
            # Whether such boxes are in pixels of the listed or of the real image, nobody can tell.
            raise InputError(
                f"{split}: {len(self.resized)} {count} have another width x height there than on "
                f"disk (turned by their EXIF orientation): {_some(self.resized)}; correct the "
                "annotations"
            )


def _places(file_names: Sequence[str], path: Path) -> list[PurePosixPath]:
    """Where the images go, below `images/<split>`; each has a label file of its own."""
    places = [_place(file_name, path) for file_name in file_names]
    names: dict[PurePosixPath, str] = {}
    for place, file_name in zip(places, file_names, strict=True):
        label = place.with_suffix(".txt")
        if label in names:
            raise InputError(
                f"{path}: the images {names[label]} and {file_name} would share the label "
                f"file {label}; rename or remove one of them"
            )
        names[label] = file_name
    return places


def _place(file_name: Any, path: Path) -> PurePosixPath:
    """Where the image goes, below `images/<split>`."""
    place = PurePosixPath(str(file_name))
    if not isinstance(file_name, str) or place.is_absolute() or ".." in place.parts:
        raise InputError(
            f"{path}: 'file_name' must be a path below the images folder, got {file_name!r}"
        )
    if place.suffix.lower() not in SUFFIXES or any(part.startswith(".") for part in place.parts):
        raise InputError(
            f"{path}: Ultralytics would pass over {file_name!r}: it takes neither hidden files nor "
            f"suffixes other than {' '.join(sorted(SUFFIXES))}; convert or rename it"
        )
    return PurePosixPath(*(part for part in place.parts if part != "images"))


def _numbers(box: Any, annotation: Any, path: Path) -> list[float]:
    if isinstance(box, list) and len(box) == 4 and {*map(type, box)} <= {int, float}:
        return [_as_float(value) for value in box]
    raise InputError(
        f"{path}: 'bbox' must be the four numbers left, top, width, height, got {shown(box)} in "
        f"the entry {shown(annotation)}"
    )


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # JSON's whole numbers have no end
        return math.inf


def _clip(
    box: Sequence[float], width: int, height: int
) -> tuple[float, float, float, float] | None:
    """Left, top, right and bottom of the part of a COCO box inside the image, all in pixels.

    None where that part has no area, or the box is not finite.
    """
    x, y, w, h = box
    if not all(map(math.isfinite, box)):
        return None
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
    if right - left <= _ROUNDING or bottom - top <= _ROUNDING:
        return None
    return left, top, right, bottom


def _reaches_out(box: Sequence[float], width: int, height: int) -> bool:
    x, y, w, h = box
    return min(x, y, width - (x + w), height - (y + h)) < -_ROUNDING


def _line(label: int, corners: Sequence[float], width: int, height: int) -> str:
    """A label file's line, in nine digits: more than the float32 into which Ultralytics reads."""
    left, top, right, bottom = corners
    shares = (
        (left + right) / 2 / width,
        (top + bottom) / 2 / height,
        (right - left) / width,
        (bottom - top) / height,
    )
    return " ".join([str(label), *(f"{share:.9g}" for share in shares)]) + "\n"


# Writing


def _write_split(folder: Path, name: str, split: _Split, link: bool, progress: bool) -> None:
    images, labels = folder / "images" / name, folder / "labels" / name
    for place in {picture.place.parent for picture in split.pictures}:
        for top in (images, labels):
            (top / place).mkdir(parents=True, exist_ok=True)
    written = list(zip(split.pictures, split.lines, strict=True))
    for picture, lines in _tracked(written, f"{name}: writing", progress):
        image, label = images / picture.place, labels / picture.place.with_suffix(".txt")
        label.write_text("".join(lines), encoding="utf-8")
        if link:
            image.symlink_to(picture.source.absolute())
        else:
            shutil.copyfile(picture.source, image)


def _data_yaml(splits: list[str], categories: list[tuple[int, str]]) -> str:
    # No `path` entry: the images are then looked for next to this file, wherever it is moved.
    content: dict[str, Any] = {split: f"images/{split}" for split in splits}
    content["names"] = {label: name for label, (_, name) in enumerate(categories)}
    content["coco_category_ids"] = [id_ for id_, _ in categories]
    # A name may hold what YAML knows by its escape alone, or takes for the end of a line.
    plain = all(name.isprintable() for _, name in categories)
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=plain, width=math.inf)


def _tracked(items: Sequence[_T], description: str, shown: bool) -> Iterable[_T]:
    return track(items, description, console=Console(stderr=True), disable=not shown)


def _some(entries: Sequence[str]) -> str:
    """The first few of the entries."""
    more = ", ..." if len(entries) > _SHOWN else ""
    return ", ".join(entries[:_SHOWN]) + more
