from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from mmkd.cli import app
from mmkd.data.to_yolo import SUFFIXES, ConversionReport, SplitReport, coco_to_yolo
from mmkd.errors import InputError

CATEGORIES = [{"id": 90, "name": "dog"}, {"id": 0, "name": "cat: no. 1"}, {"id": 7, "name": "yes"}]
WIDTH, HEIGHT = 100, 50


def image(id_: Any, name: str, **changes: Any) -> dict[str, Any]:
    return {"id": id_, "file_name": name, "width": WIDTH, "height": HEIGHT, **changes}


def box(image_id: Any, *bbox: float, category: int = 7, **more: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": image_id, "bbox": list(bbox), "category_id": category, **more}


class Source:
    """Writes splits in COCO format below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.splits: dict[str, tuple[Path, Path]] = {}
        self.split("train", [image(1, "a.png")], [box(1, 10, 5, 20, 10)])
        self.split("val", [image(1, "a.png")], [])

    def split(
        self,
        name: str,
        images: list[dict[str, Any]],
        annotations: list[Any],
        categories: list[dict[str, Any]] = CATEGORIES,
    ) -> Source:
        folder = self.folder / f"{name}2017"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for entry in images:
            path = folder / entry["file_name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.full((HEIGHT, WIDTH, 3), 7 * len(path.name), np.uint8)
            path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())
        content = {"images": images, "annotations": annotations, "categories": categories}
        self.splits[name] = self.folder / f"{name}.json", folder
        self.splits[name][0].write_text(json.dumps(content))
        return self


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path / "source")


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def labels(out: Path, name: str) -> list[list[float]]:
    lines = (out / "labels" / name).read_text().splitlines()
    return [[float(value) for value in line.split()] for line in lines]


def options(splits: Mapping[str, tuple[Path, Path]]) -> list[str]:
    return [str(part) for name, paths in splits.items() for part in (f"--{name}", *paths)]


# What is written


def test_a_small_set_by_hand(source: Source, tmp_path: Path) -> None:
    source.split(
        "train",
        [image(5, "b.jpg"), image(3, "a.png")],
        [
            box(3, 10, 5, 20, 10, category=90),
            box(5, 0, 0, 100, 50, category=0, iscrowd=0),
            box(3, 50.5, 20.25, 1.5, 2.5),
        ],
    )
    source.split("test", [image("x", "c.png")], [])
    out = tmp_path / "out"
    report = coco_to_yolo(out, source.splits)
    assert labels(out, "train/a.txt") == [[2, 0.2, 0.2, 0.2, 0.2], [1, 0.5125, 0.43, 0.015, 0.05]]
    assert labels(out, "train/b.txt") == [[0, 0.5, 0.5, 1, 1]]
    assert labels(out, "val/a.txt") == labels(out, "test/c.txt") == []
    assert report == ConversionReport(
        out / "data.yaml",
        {
            "train": SplitReport(images=2, boxes=3),
            "val": SplitReport(images=1, empty=1),
            "test": SplitReport(images=1, empty=1),
        },
    )
    written = files(out)
    assert written.keys() == {
        "data.yaml",
        "to_yolo.json",
        *(f"labels/{name}.txt" for name in ("train/a", "train/b", "val/a", "test/c")),
        *(f"images/{name}" for name in ("train/a.png", "train/b.jpg", "val/a.png", "test/c.png")),
    }
    for split, (_, folder) in source.splits.items():
        for name, content in files(folder).items():
            assert written[f"images/{split}/{name}"] == content


def test_data_yaml_names_the_classes_in_the_order_of_their_ids(
    source: Source, tmp_path: Path
) -> None:
    yaml = pytest.importorskip("yaml")
    odd = ['say "no": #1', "null", "Größe ✓ 😀", " a\\n\t"]
    # Characters that YAML has only by their escapes, or takes for the end of a line.
    odd += [
        "\x01\x1b[2J",
        "del \x7f\x80\x9f",
        "\ufeff \uffff",
        "a\x85b\u2028c\u2029d",
        "e\r\nf",
        "x " * 90,
    ]
    categories = [{"id": 100 - 10 * k, "name": name} for k, name in enumerate(odd)]
    for split in ("val", "train"):
        source.split(split, [image(1, "a.png")], [], categories)
    file = coco_to_yolo(tmp_path / "out", source.splits).data_yaml
    data = yaml.safe_load(file.read_text("utf-8"))
    assert data == {
        "train": "images/train",
        "val": "images/val",
        "names": dict(enumerate(reversed(odd))),
        "coco_category_ids": sorted(category["id"] for category in categories),
    }
    pytest.importorskip("ultralytics")
    from ultralytics.utils import YAML

    assert YAML.load(file) == data


def test_data_yaml_is_legible(source: Source, tmp_path: Path) -> None:
    for split in ("val", "train"):
        source.split(split, [image(1, "a.png")], [], [{"id": 1, "name": "Größe ✓ 😀"}])
    text = coco_to_yolo(tmp_path / "out", source.splits).data_yaml.read_text("utf-8")
    assert "  0: Größe ✓ 😀\n" in text


@pytest.mark.parametrize(
    ("annotation", "line", "counts"),
    [
        (box(1, 90, 40, 30, 20), [1, 0.95, 0.9, 0.1, 0.2], dict(boxes=1, clipped=1)),
        (box(1, -10, -10, 20, 20), [1, 0.05, 0.1, 0.1, 0.2], dict(boxes=1, clipped=1)),
        (box(1, -5, -5, 200, 200), [1, 0.5, 0.5, 1, 1], dict(boxes=1, clipped=1)),
        (box(1, 0.1, 0, 0.2 + 99.7, 50), [1, 0.5005, 0.5, 0.999, 1], dict(boxes=1)),
        (box(1, 100, 10, 10, 10), None, dict(no_area=1)),
        (box(1, 10, -20, 10, 20), None, dict(no_area=1)),
        (box(1, 10, 10, 0, 10), None, dict(no_area=1)),
        (box(1, 10, 10, 10, -5), None, dict(no_area=1)),
        (box(1, -10, -10, -20, -20), None, dict(no_area=1)),
        (box(1, float("nan"), 10, 10, 10), None, dict(no_area=1)),
        (box(1, 10, 10, 10, float("inf")), None, dict(no_area=1)),
        (box(1, float("-inf"), 10, float("inf"), 10), None, dict(no_area=1)),
        (box(1, 1e308, 10, 1e308, 10), None, dict(no_area=1)),
        (box(1, 1e39, 10, 10, 10), None, dict(no_area=1)),
        (box(1, 10**400, 10, 10, 10), None, dict(no_area=1)),
        (box(1, -1e39, 10, 2e39, 10), [1, 0.5, 0.3, 1, 0.2], dict(boxes=1, clipped=1)),
        (box(1, 10, 10, 10, 10, iscrowd=1), None, dict(crowd=1)),
        (box(1, 10, 10, 10, 10, category=8), None, dict(unknown_categories={8: 1})),
        (box(2, 10, 10, 10, 10), None, dict(unknown_images={2: 1})),
        (box(2, 10, 10, 10, 10, category=8, iscrowd=1), None, dict(unknown_images={2: 1})),
    ],
)
def test_what_becomes_of_a_box(
    annotation: dict, line: list[float] | None, counts: dict, source: Source, tmp_path: Path
) -> None:
    source.split("train", [image(1, "a.png")], [annotation])
    report = coco_to_yolo(tmp_path / "out", source.splits)
    assert report.splits["train"] == SplitReport(images=1, empty=int(line is None), **counts)
    found = labels(tmp_path / "out", "train/a.txt")
    assert len(found) == (line is not None)
    if line is not None:
        np.testing.assert_allclose(found[0], line, rtol=0, atol=1e-9)


def test_only_the_same_box_of_the_same_class_and_image_is_a_duplicate(
    source: Source, tmp_path: Path
) -> None:
    same = [box(1, 10, 5, 20, 10), box(1, 10.0, 5.0, 20.0, 10.0), box(1, 10, 5, 20, 10)]
    other = [
        box(1, 10, 5, 20, 10, category=0),
        box(2, 10, 5, 20, 10),
        box(1, 10, 5, 20, 10.01),
    ]
    source.split("train", [image(1, "a.png"), image(2, "b.png")], same + other)
    report = coco_to_yolo(tmp_path / "out", source.splits)
    assert report.splits["train"] == SplitReport(images=2, boxes=4, duplicates=2)
    assert len(labels(tmp_path / "out", "train/a.txt")) == 3


sizes = st.integers(10, 1500)


@given(
    width=sizes, height=sizes, shares=st.lists(st.tuples(*[st.floats(-0.5, 1.5)] * 4), max_size=5)
)
def test_boxes_come_back_from_the_labels(width: int, height: int, shares: list[tuple]) -> None:
    """Oracle: numpy's clip of the corners, and COCO boxes computed back from the labels."""
    corners = np.array(shares, float).reshape(-1, 2, 2) * (width, height)
    corners = np.stack([corners.min(axis=1), corners.max(axis=1)], axis=1)
    expected = corners.clip(0, (width, height))
    # A box that is cut to a sliver may count as one without area.
    assume(not ((0 < np.diff(expected, axis=1)) & (np.diff(expected, axis=1) < 1e-5)).any())
    inside = (np.diff(expected, axis=1) > 0).all(axis=(1, 2))
    assume(len(np.unique(expected[inside].round(3), axis=0)) == inside.sum())
    with tempfile.TemporaryDirectory() as temporary:
        source = Source(Path(temporary))
        annotations, folder = source.splits["train"]
        Image.new("1", (width, height)).save(folder / "a.png")
        content = json.loads(annotations.read_text())
        content["images"] = [image(1, "a.png", width=width, height=height)]
        content["annotations"] = [box(1, *low, *(high - low)) for low, high in corners]
        annotations.write_text(json.dumps(content))
        report = coco_to_yolo(Path(temporary) / "out", source.splits).splits["train"]
        found = np.array(labels(Path(temporary) / "out", "train/a.txt")).reshape(-1, 5)[:, 1:]
    low, size = found[:, :2] - found[:, 2:] / 2, found[:, 2:]
    assert (low >= -1e-8).all() and (low + size <= 1 + 1e-8).all()
    back = np.stack([low, low + size], axis=1) * (width, height)
    np.testing.assert_allclose(back, expected[inside], rtol=0, atol=1e-4)
    assert (report.boxes, report.no_area) == (inside.sum(), (~inside).sum())
    reaches_out = (abs(expected - corners) > 1e-5).any(axis=(1, 2))
    assert report.clipped == (inside & reaches_out).sum()


def test_images_of_one_name_in_different_folders_stay_apart(source: Source, tmp_path: Path) -> None:
    names = ["x/a.png", "y/a.png", "a.png", "x/y/a.b.png", "images/c.png", "z/images/c.png"]
    images = [image(k, name) for k, name in enumerate(names)]
    boxes = [box(k, 10, 5, 10 + 2 * k, 10) for k in range(len(names))]
    source.split("train", images, boxes)
    coco_to_yolo(tmp_path / "out", source.splits)
    places = ["x/a", "y/a", "a", "x/y/a.b", "c", "z/c"]
    for k, (name, place) in enumerate(zip(names, places, strict=True)):
        picture = tmp_path / "out" / "images" / "train" / f"{place}.png"
        assert picture.read_bytes() == (source.splits["train"][1] / name).read_bytes()
        [[_, _, _, width, _]] = labels(tmp_path / "out", f"train/{place}.txt")
        assert width == pytest.approx((10 + 2 * k) / 100)


@pytest.mark.parametrize("link", [False, True])
def test_the_source_stays_as_it_is(link: bool, source: Source, tmp_path: Path) -> None:
    def state() -> list[tuple]:
        stats = ((path, path.lstat()) for path in sorted(source.folder.rglob("*")))
        return [(path, stat.st_mtime_ns, stat.st_mode, stat.st_ino) for path, stat in stats]

    before, content = state(), files(source.folder)
    coco_to_yolo(tmp_path / "out", source.splits, link=link)
    (tmp_path / "out" / "images" / "train" / "a.png").unlink()
    shutil.rmtree(tmp_path / "out")
    assert state() == before
    assert files(source.folder) == content


def test_links_lead_to_the_source_from_anywhere(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(source.folder)
    relative = {name: (f"{name}.json", f"{name}2017") for name in ("train", "val")}
    coco_to_yolo("../linked", relative, link=True)
    monkeypatch.chdir("/")
    linked = tmp_path / "linked" / "images" / "train" / "a.png"
    assert linked.is_symlink() and not linked.parent.is_symlink()
    assert linked.resolve() == (source.splits["train"][1] / "a.png").resolve()


# What Ultralytics makes of it


@pytest.fixture
def ultralytics_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:  # a function: data.yaml, split -> labels by image
    for name, value in (("YOLO_CONFIG_DIR", str(tmp_path / "config")), ("YOLO_OFFLINE", "true")):
        monkeypatch.setenv(name, os.environ.get(name, value))
    pytest.importorskip("ultralytics")
    from ultralytics.cfg import get_cfg
    from ultralytics.data import utils
    from ultralytics.data.build import build_yolo_dataset

    # It would fetch a font.
    monkeypatch.setattr(utils, "check_font", lambda font: None)

    def read(data_yaml: Path, split: str) -> dict[str, np.ndarray]:
        data = utils.check_det_dataset(data_yaml)
        assert data["names"] == {0: "cat: no. 1", 1: "yes", 2: "dog"}
        assert data["coco_category_ids"] == [0, 7, 90]
        dataset = build_yolo_dataset(get_cfg(), data[split], 1, data, mode="val")
        return {
            Path(label["im_file"]).relative_to(data[split]).as_posix(): np.hstack(
                [label["cls"], label["bboxes"]]
            )
            for label in dataset.labels
        }

    return read


@pytest.mark.parametrize("link", [False, True])
def test_ultralytics_reads_every_image_and_box(
    link: bool,
    ultralytics_labels: Any,
    source: Source,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ["images/a.png", "b.jpg", "deep/images/b.jpg", "deep/c.bmp", "empty.JPG"]
    boxes = [box(k % 4, 9 * k, 3 * k, 40, 20, category=7 if k % 3 else 90) for k in range(11)]
    faults = [
        box(0, 9, 3, 40, 20),
        box(1, 9, 3, 40, 20),
        box(1, 5, 5, 0, 5),
        box(4, 1, 1, 5, 5, iscrowd=1),
        box(3, 1, 1, 5, 5, category=1),
    ]
    images = [image(k, name) for k, name in enumerate(names)]
    source.split("train", images, boxes + faults)
    written = coco_to_yolo(tmp_path / "images" / "out", source.splits, link=link)
    # Moved, and read from another working directory.
    folder = written.data_yaml.parent.rename(tmp_path / "moved")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for data_yaml in (folder / "data.yaml", Path("../moved/data.yaml")):
        read = ultralytics_labels(data_yaml, "train")
        assert read.keys() == {"a.png", "b.jpg", "deep/b.jpg", "deep/c.bmp", "empty.JPG"}
        report = written.splits["train"]
        assert sum(map(len, read.values())) == report.boxes == 12
        assert sum(not len(found) for found in read.values()) == report.empty == 1
        for name, found in read.items():
            expected = labels(folder, f"train/{Path(name).with_suffix('.txt')}")
            np.testing.assert_array_equal(found, np.array(expected, np.float32).reshape(-1, 5))
        assert ultralytics_labels(data_yaml, "val").keys() == {"a.png"}


def test_the_accepted_suffixes_are_those_of_ultralytics(ultralytics_labels: Any) -> None:
    from ultralytics.data.utils import IMG_FORMATS

    assert {f".{suffix}" for suffix in IMG_FORMATS} == SUFFIXES


# Where it is written


def test_an_equal_conversion_is_reused(source: Source, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    first = coco_to_yolo(out, source.splits)
    (out / "labels" / "train.cache").write_text("as Ultralytics leaves behind")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    backwards = {name: tuple(map(str, source.splits[name])) for name in ("val", "train")}
    assert coco_to_yolo(str(out), backwards) == first
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_an_empty_folder_is_filled(source: Source, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert coco_to_yolo(tmp_path / "out", source.splits).data_yaml.is_file()


def test_what_is_there_is_never_overwritten(source: Source, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="source already holds other files"):
        coco_to_yolo(source.folder, source.splits)
    with pytest.raises(InputError, match=r"train\.json is a file"):
        coco_to_yolo(source.splits["train"][0], source.splits)
    out = tmp_path / "out"
    coco_to_yolo(out, source.splits)
    before = files(out)
    with pytest.raises(FileExistsError, match="another source"):
        coco_to_yolo(out, source.splits, link=True)
    with pytest.raises(FileExistsError, match="another source"):
        coco_to_yolo(out, {**source.splits, "test": source.splits["val"]})
    source.split("val", [image(1, "a.png")], [box(1, 1, 1, 5, 5)])
    with pytest.raises(FileExistsError, match="another source"):
        coco_to_yolo(out, source.splits)
    assert files(out) == before


def test_a_failed_write_leaves_nothing_behind(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(shutil, "copyfile", fail)
    with pytest.raises(OSError, match="disk full"):
        coco_to_yolo(tmp_path / "out", source.splits)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


# What is refused


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no json", r"train\.json: .* found what is not JSON"),
        ("[" * 100_000, r"train\.json: .* too deep to read"),
        ([], "train.json has no list 'images'"),
        ({"images": [], "annotations": {}, "categories": []}, "has no list 'annotations'"),
        (dict(categories=[]), "lists no category"),
        (dict(categories=[{"id": 1}]), r"categories\[0\]: expected 'name' to be a string"),
        (dict(categories=[{"id": 1, "name": "a\0"}]), "to be plain text"),
        (dict(categories=[{"id": 1, "name": "\ud800"}]), "to be plain text"),
        (dict(categories=[{"id": "1", "name": "a"}]), "'id' to be a whole number, found '1'"),
        (dict(categories=[{"id": 1, "name": n} for n in "ab"]), r"categories\[1\]: .* found 1"),
        (dict(images=[]), "lists no image"),
        (dict(images=[{"id": 1}]), r"images\[0\]: expected 'file_name' to be a string"),
        (dict(images=["a.png"]), r"images\[0\]: expected an object, found a string"),
        (dict(images=[image(1, "a.png"), image(1, "b.png")]), r"images\[1\]: .* found 1\."),
        (dict(images=[image([1], "a.png")]), r"'id' to be a whole number or a string, found \[1\]"),
        (dict(images=[image(1, "a\0.png")]), "'file_name' to be plain text"),
        (dict(images=[image(1, "a" * 300 + ".png")]), r"cannot be read: a+\.png \(.*too long"),
        (dict(images=[image(1, "folder.png")]), r"cannot be read: folder\.png"),
        (dict(images=[image(1, "loop.png")]), r"are not in .*: loop\.png"),
        (dict(images=[image(1, "pipe.png")]), r"cannot be read: pipe\.png"),
        (dict(images=[image(1, "/a.png")]), "below the images folder, got '/a.png'"),
        (dict(images=[image(1, "../val2017/a.png")]), "got '../val2017/a.png'"),
        (dict(images=[image(1, None)]), "found None"),
        (dict(images=[image(1, "a.gif")]), "pass over 'a.gif'"),
        (dict(images=[image(1, ".x/a.png")]), "pass over '.x/a.png'"),
        (dict(images=[image(1, "a")]), "pass over 'a'"),
        (
            dict(images=[image(1, "a.png"), image(2, "a.png")]),
            "a.png and a.png would share the label file a.txt",
        ),
        (
            dict(images=[image(1, "x/a.png"), image(2, "x/images/a.jpg")]),
            "x/a.png and x/images/a.jpg would share the label file x/a.txt",
        ),
        (
            dict(images=[image(1, "a.png", height=49)]),
            r"train: 1 of the 1 images .* a\.png \(100 x 49, not 100 x 50\)",
        ),
        (dict(images=[image(1, "text.png")]), r"train: 1 of .* cannot be read: text\.png"),
        (dict(images=[image(1, "a.png", width="100")]), r"\('100' x 50, not 100 x 50\)"),
        (dict(annotations=[{"image_id": 1, "category_id": 7}]), "got None in the entry"),
        (dict(annotations=[box([1], 1, 2, 3, 4)]), r"'image_id' to be an id, found \[1\]"),
        (dict(annotations=[box(1, 1, 2, 3, 4, category=[7])]), "'category_id' to be an id"),
        (dict(annotations=[box(1, 1, 2, 3, 4, iscrowd="0")]), "'iscrowd' to be 0 or 1, found '0'"),
        (dict(annotations=[box(1, 1, 2, 3, 4, iscrowd=2)]), "'iscrowd' to be 0 or 1, found 2"),
        (dict(annotations=[box(1, 1, 2, 3, True)]), "got .1, 2, 3, True"),
        (dict(annotations=[box(1, 1, 2, 3)]), r"left, top, width, height, got \[1, 2, 3\]"),
        (dict(annotations=[box(1, 1, 2, 3, "4")]), r"got \[1, 2, 3, '4'\]"),
        (dict(annotations=[{**box(1), "bbox": None}]), "got None"),
    ],
)
def test_a_bad_annotation_file_is_refused(
    content: Any, message: str, source: Source, tmp_path: Path
) -> None:
    path, folder = source.splits["train"]
    (folder / "text.png").write_text("no picture")
    (folder / "folder.png").mkdir()
    (folder / "loop.png").symlink_to("loop.png")
    os.mkfifo(folder / "pipe.png")
    if isinstance(content, dict):
        content = {**json.loads(path.read_text()), **content}
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=message):
        coco_to_yolo(tmp_path / "out", source.splits)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("names", [(), ("train",), ("val", "test"), ("train", "val", "minival")])
def test_splits_other_than_those_of_ultralytics_are_refused(
    names: tuple[str, ...], source: Source, tmp_path: Path
) -> None:
    splits = {name: source.splits["train"] for name in names}
    with pytest.raises(ValueError, match=f"test; got {', '.join(names) or 'none'}"):
        coco_to_yolo(tmp_path / "out", splits)


def test_splits_must_agree_on_the_categories(source: Source, tmp_path: Path) -> None:
    source.split("val", [image(1, "a.png")], [], [*CATEGORIES[:2], {"id": 8, "name": "yes"}])
    with pytest.raises(ValueError) as error:
        coco_to_yolo(tmp_path / "out", source.splits)
    assert str(error.value).endswith(
        f": {source.splits['train'][0]}: '0 cat: no. 1', '7 yes', '90 dog'; "
        f"{source.splits['val'][0]}: '0 cat: no. 1', '8 yes', '90 dog'"
    )
    source.split("val", [image(1, "a.png")], [], CATEGORIES[::-1])
    coco_to_yolo(tmp_path / "out", source.splits)


def test_missing_files_are_named_before_anything_is_written(source: Source, tmp_path: Path) -> None:
    annotations, folder = source.splits["train"]
    source.split("train", [image(k, f"{k}.png") for k in range(9)], [])
    for k in range(1, 9):
        (folder / f"{k}.png").unlink()
    out = tmp_path / "out"
    with pytest.raises(
        FileNotFoundError,
        match=r"train: 8 of the 9 .* not in .*train2017: 1\.png, .*, 5\.png, \.\.\.; give",
    ):
        coco_to_yolo(out, source.splits)
    with pytest.raises(FileNotFoundError, match="train: there is no annotation file"):
        coco_to_yolo(out, {**source.splits, "train": (folder / "none", folder)})
    with pytest.raises(InputError, match="expected a COCO annotation file, found a folder"):
        coco_to_yolo(out, {**source.splits, "train": (folder, folder)})
    with pytest.raises(FileNotFoundError, match="train: there is no images folder"):
        coco_to_yolo(out, {**source.splits, "train": (annotations, annotations)})
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_an_image_that_is_cut_short_is_refused(source: Source, tmp_path: Path) -> None:
    """Whatever its format; a JPEG with something behind its end is whole."""
    names = ["a.jpg", "a.png", "a.bmp", "a.webp", "a.tiff"]
    folder = source.splits["train"][1]
    for name in names:
        source.split("train", [image(1, name)], [])
        whole = (folder / name).read_bytes()
        for kept in (len(whole) // 2, len(whole) - 16):
            (folder / name).write_bytes(whole[:kept])
            with pytest.raises(InputError, match=rf"train: 1 of .* cannot be read: {name} \(.+\)"):
                coco_to_yolo(tmp_path / "out", source.splits)
    source.split("train", [image(1, "a.jpg")], [])
    with (folder / "a.jpg").open("ab") as stream:
        stream.write(b"\0" * 100)
    assert coco_to_yolo(tmp_path / "out", source.splits).splits["train"].images == 1


def test_a_decompression_bomb_is_refused(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", WIDTH * HEIGHT // 3)
    with pytest.raises(InputError, match=r"cannot be read: a\.png \(.* decompression bomb"):
        coco_to_yolo(tmp_path / "out", source.splits)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_boxes_lie_where_opencv_draws_their_objects(
    orientation: int, suffix: str, source: Source, tmp_path: Path
) -> None:
    """OpenCV, and with it Ultralytics, turns an image by its EXIF orientation."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[8:24, 16:72] = 255  # nearer to one corner, and no square
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, {".jpg": "JPEG", ".png": "PNG"}[suffix], exif=exif)
    drawn = cv2.imdecode(np.frombuffer(content.getvalue(), np.uint8), cv2.IMREAD_COLOR)
    rows, columns = (np.flatnonzero((drawn > 127).any(axis=(axis, 2))) for axis in (1, 0))
    left, top = int(columns[0]), int(rows[0])
    width, height = len(columns), len(rows)
    sides = drawn.shape[1], drawn.shape[0]
    assert (width, height, *sides) == (
        (56, 16, WIDTH, HEIGHT) if orientation < 5 else (16, 56, HEIGHT, WIDTH)
    )

    def convert(out: str, listed: tuple[int | None, int | None]) -> list[list[float]]:
        entry = image(1, f"a{suffix}", width=listed[0], height=listed[1])
        source.split("train", [entry], [box(1, left, top, width, height)])
        (source.splits["train"][1] / f"a{suffix}").write_bytes(content.getvalue())
        coco_to_yolo(tmp_path / out, source.splits)
        return labels(tmp_path / out, "train/a.txt")

    expected = [
        1,
        (left + width / 2) / sides[0],
        (top + height / 2) / sides[1],
        width / sides[0],
        height / sides[1],
    ]
    for out, listed in (("said", sides), ("unsaid", (None, None))):
        [found] = convert(out, listed)
        assert found == pytest.approx(expected, abs=1e-8)
    with pytest.raises(InputError, match="have another width x height"):
        convert("refused", sides[::-1])


# The command


def test_the_command_converts_and_reports(source: Source, tmp_path: Path) -> None:
    source.split(
        "train",
        [image(1, "a.png"), image(2, "b.png")],
        [
            *(box(1, 1, 1, 5, k + 1) for k in range(3)),
            *(box(1, 95, 1, 20, k + 1) for k in range(2)),
            *(box(1, 1, 1, 5, 5, iscrowd=1) for _ in range(6)),
            *(box(1, 1, 1, 0, 5) for _ in range(7)),
            *(box(1, 1, 1, 5, 1) for _ in range(8)),
            *(box(1, 1, 1, 5, 5, category=91) for _ in range(9)),
            *(box("[/x]", 1, 1, 5, 5) for _ in range(10)),
        ],
    )
    arguments = ["data", "to-yolo", "--out", str(tmp_path / "out"), *options(source.splits)]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    rows = [line.strip("│ ").split("│") for line in result.output.splitlines() if "│" in line]
    assert {row[0].strip(): [int(value) for value in row[1:]] for row in rows} == {
        "images": [2, 1],
        "of them without a box": [1, 1],
        "boxes": [5, 0],
        "of them clipped to the image": [2, 0],
        "left out: crowd": [6, 0],
        "left out: no area in the image": [7, 0],
        "left out: duplicate": [8, 0],
        "left out: unknown category": [9, 0],
        "left out: unknown image": [10, 0],
    }
    assert str(tmp_path / "out" / "data.yaml") in result.output
    assert not (tmp_path / "out" / "images" / "train" / "a.png").is_symlink()


def test_the_table_shows_unknown_ids(tmp_path: Path) -> None:
    report = SplitReport()
    report.unknown_categories.update({id_: id_ for id_ in range(91, 98)})
    report.unknown_images.update({"[/x]": 10})
    console = Console(file=io.StringIO(), width=120)
    console.print(ConversionReport(tmp_path, {"val": report}).table())
    words = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    assert (
        "val: unknown category ids 91 (91x), 92 (92x), 93 (93x), 94 (94x), 95 (95x), ..." in words
    )
    assert "val: unknown image ids '[/x]' (10x)" in words


def test_the_command_links_and_takes_a_test_split(source: Source, tmp_path: Path) -> None:
    source.split("test", [image(1, "t.png")], [box(1, 1, 1, 5, 5)])
    arguments = ["data", "to-yolo", "--out", str(tmp_path / "out"), *options(source.splits)]
    result = CliRunner().invoke(app, [*arguments, "--link"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "images" / "test" / "t.png").is_symlink()
    data = (tmp_path / "out" / "data.yaml").read_text().splitlines()
    assert data[:3] == ["train: images/train", "val: images/val", "test: images/test"]
    assert labels(tmp_path / "out", "test/t.txt")


def test_the_command_tells_a_mistake_as_one(source: Source, tmp_path: Path) -> None:
    (source.splits["val"][1] / "a.png").unlink()
    arguments = ["data", "to-yolo", "--out", str(tmp_path / "out"), *options(source.splits)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "val: 1 of the 1 images" in result.output
    assert not (tmp_path / "out").exists()
