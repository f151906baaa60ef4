"""A COCO-format detection set in the layout that Ultralytics trains on.

Ultralytics' own `convert_coco` (8.4.190) serves COCO itself and little else. For the class it takes
the category id less 1, so that ids 0 and 7 of two categories become -1 and 6, both refused by its
trainer. It writes boxes beyond the border, NaN and unknown categories as they are, stops at a box
of an unknown image, makes no file for an image without boxes, merges `a.jpg` and `a.png` into one
label file, brings no images and no data.yaml along, and counts nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
import reprlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from PIL import ExifTags, Image, UnidentifiedImageError
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

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

_RECIPE = 1  # raised whenever the same source would give other files
_RECORD = "to_yolo.json"
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
                "annotations": hashlib.sha256(file.read_bytes()).hexdigest(),
                "images": str(images.resolve()),
            }
            for name, (file, images) in sources.items()
        },
    }
    out = Path(out)
    held = out.exists() and _holds(out, settings)

    read = {name: _read(name, *source, progress) for name, source in sources.items()}
    _check_categories({sources[name][0]: split.categories for name, split in read.items()})
    report = ConversionReport(
        out / "data.yaml", {name: split.report for name, split in read.items()}
    )
    if held:
        return report

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".to-yolo-", dir=out.parent) as temporary:
        folder = Path(temporary) / "set"
        folder.mkdir()
        for name, split in read.items():
            _write_split(folder, name, split, link, progress)
        content = _data_yaml(list(read), read["train"].categories)
        (folder / "data.yaml").write_text(content, encoding="utf-8")
        (folder / _RECORD).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        if out.exists():
            out.rmdir()  # it is empty: not every system lets a folder replace another
        folder.rename(out)
    return report


def _sources(
    splits: Mapping[str, tuple[str | Path, str | Path]],
) -> dict[str, tuple[Path, Path]]:
    """Annotation file and images folder of each split, in the order of `SPLITS`; both exist."""
    if not {"train", "val"} <= set(splits) <= set(SPLITS):
        raise ValueError(
            "splits must name train and val, which Ultralytics cannot do without, and may name "
            f"test; got {', '.join(splits) or 'none'}"
        )
    sources = {
        name: (Path(splits[name][0]), Path(splits[name][1])) for name in SPLITS if name in splits
    }
    for name, (file, images) in sources.items():
        if not file.is_file():
            raise FileNotFoundError(f"{name}: there is no annotation file {file}")
        if not images.is_dir():
            raise FileNotFoundError(f"{name}: there is no images folder {images}")
    return sources


def _holds(out: Path, settings: dict[str, object]) -> bool:
    """Whether `out` holds the conversion of these settings; False where it is an empty folder."""
    if not out.is_dir():
        raise FileExistsError(f"{out} is a file; give a folder to write the set into")
    if not any(out.iterdir()):
        return False
    record = out / _RECORD
    found = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else None
    if found == settings:
        return True
    what = "the conversion of another source" if found else "other files"
    raise FileExistsError(f"{out} already holds {what}; give another folder or remove this one")


# Reading


def _read(name: str, annotations: Path, folder: Path, progress: bool) -> _Split:
    """One split, checked; its boxes are clipped and in shares of the image's sides."""
    content = _load(annotations)
    categories = _categories(content["categories"], annotations)
    pictures = _pictures(name, content["images"], annotations, folder, progress)
    labels = {id_: label for label, (id_, _) in enumerate(categories)}
    lines: dict[Any, dict[str, None]] = {id_: {} for id_ in pictures}
    report = SplitReport(images=len(pictures))
    for annotation in content["annotations"]:
        image_id, category_id, box = (
            _get(annotation, key, annotations) for key in ("image_id", "category_id", "bbox")
        )
        if image_id not in pictures:
            report.unknown_images[image_id] += 1
        elif category_id not in labels:
            report.unknown_categories[category_id] += 1
        elif annotation.get("iscrowd"):
            report.crowd += 1
        else:
            picture = pictures[image_id]
            size = picture.width, picture.height
            corners = _clip(_numbers(box, annotation, annotations), *size)
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


def _load(path: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not a JSON file: {error}") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise ValueError(
                f"{path} has no list {key!r}; expected COCO's detection format: an object with the "
                "lists 'images', 'annotations' and 'categories'"
            )
    return content


def _get(entry: Any, key: str, path: Path) -> Any:
    try:
        return entry[key]
    except (KeyError, TypeError):
        raise ValueError(f"{path}: no {key!r} in the entry {reprlib.repr(entry)}") from None


def _categories(entries: list[Any], path: Path) -> list[tuple[int, str]]:
    """Ids and names, in order of id."""
    names: dict[int, str] = {}
    for entry in entries:
        id_, name = _get(entry, "id", path), str(_get(entry, "name", path))
        if isinstance(id_, bool) or not isinstance(id_, int):
            raise ValueError(f"{path}: the id of a category must be an integer, got {id_!r}")
        if id_ in names:
            raise ValueError(f"{path}: {names[id_]!r} and {name!r} share the category id {id_}")
        names[id_] = name
    if not names:
        raise ValueError(f"{path} lists no category")
    return sorted(names.items())


def _check_categories(categories: Mapping[Path, list[tuple[int, str]]]) -> None:
    (first, expected), *others = categories.items()
    for path, found in others:
        if found != expected:
            lists = (
                f"\n{file}: " + ", ".join(f"{id_} {name}" for id_, name in listed)
                for file, listed in ((first, expected), (path, found))
            )
            raise ValueError(
                "the splits must list the same categories, by id and name" + "".join(lists)
            )


def _pictures(
    name: str, entries: list[Any], annotations: Path, folder: Path, progress: bool
) -> dict[Any, _Picture]:
    """The listed images by id, all of them readable and of the listed size."""
    if not entries:
        raise ValueError(f"{annotations} lists no image")
    pictures: dict[Any, _Picture] = {}
    names: dict[PurePosixPath, str] = {}
    missing, broken, resized = [], [], []
    for entry in _tracked(entries, f"{name}: checking", progress):
        id_, file_name = _get(entry, "id", annotations), _get(entry, "file_name", annotations)
        if id_ in pictures:
            raise ValueError(f"{annotations}: two images have the id {id_!r}")
        place = _place(file_name, annotations)
        label = place.with_suffix(".txt")
        if label in names:
            raise ValueError(
                f"{annotations}: the images {names[label]} and {file_name} would share the label "
                f"file {label}; rename or remove one of them"
            )
        names[label] = file_name
        source, width, height = folder / file_name, 0, 0
        try:
            width, height = _size(source)
        except FileNotFoundError:
            missing.append(file_name)
        except (UnidentifiedImageError, IsADirectoryError, ImportError):
            # ImportError: once imported, Ultralytics looks for a plugin to read such a file with.
            broken.append(file_name)
        else:
            listed = entry.get("width") or width, entry.get("height") or height
            if listed != (width, height):
                resized.append(f"{file_name} ({listed[0]} x {listed[1]}, not {width} x {height})")
        pictures[id_] = _Picture(source, place, width, height)
    count = f"of the {len(entries)} images listed in {annotations}"
    if missing:
        raise FileNotFoundError(
            f"{name}: {len(missing)} {count} are not in {folder}: {_some(missing)}; give the "
            "folder that their file names start from"
        )
    if broken:
        raise ValueError(f"{name}: {len(broken)} {count} cannot be read: {_some(broken)}")
    if resized:
        # Whether such boxes are in pixels of the listed or of the real image, nobody can tell.
        raise ValueError(
            f"{name}: {len(resized)} {count} have another width x height there than on disk "
            f"(turned by their EXIF orientation): {_some(resized)}; correct the annotations"
        )
    return pictures


def _place(file_name: Any, path: Path) -> PurePosixPath:
    """Where the image goes, below `images/<split>`."""
    place = PurePosixPath(str(file_name))
    if not isinstance(file_name, str) or place.is_absolute() or ".." in place.parts:
        raise ValueError(
            f"{path}: 'file_name' must be a path below the images folder, got {file_name!r}"
        )
    if place.suffix.lower() not in SUFFIXES or any(part.startswith(".") for part in place.parts):
        raise ValueError(
            f"{path}: Ultralytics would pass over {file_name!r}: it takes neither hidden files nor "
            f"suffixes other than {' '.join(sorted(SUFFIXES))}; convert or rename it"
        )
    return PurePosixPath(*(part for part in place.parts if part != "images"))


def _size(path: Path) -> tuple[int, int]:
    """Width and height of the image as it is drawn: turned by its EXIF orientation."""
    with Image.open(path) as image:
        width, height = image.size
        # Only asked where there is some: a PNG without would be decoded in search of it.
        tagged = "exif" in image.info or image.format == "TIFF"
        turn = image.getexif().get(ExifTags.Base.Orientation) if tagged else None
    return (height, width) if turn in (5, 6, 7, 8) else (width, height)


def _numbers(box: Any, annotation: Any, path: Path) -> Sequence[float]:
    if (
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(value, int | float) for value in box)
    ):
        return box
    raise ValueError(
        f"{path}: 'bbox' must be the four numbers left, top, width, height, got "
        f"{reprlib.repr(box)} in the entry {reprlib.repr(annotation)}"
    )


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
    folders = "".join(f"{split}: images/{split}\n" for split in splits)
    # A JSON string is a YAML string, whatever the name holds.
    names = "".join(
        f"  {label}: {json.dumps(name, ensure_ascii=False)}\n"
        for label, (_, name) in enumerate(categories)
    )
    return f"{folders}names:\n{names}coco_category_ids: {[id_ for id_, _ in categories]}\n"


def _tracked(items: Sequence[_T], description: str, shown: bool) -> Iterable[_T]:
    return track(items, description, console=Console(stderr=True), disable=not shown)


def _some(entries: Sequence[str]) -> str:
    """The first few of the entries."""
    more = ", ..." if len(entries) > _SHOWN else ""
    return ", ".join(entries[:_SHOWN]) + more
