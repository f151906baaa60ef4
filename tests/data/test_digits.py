from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from sklearn.datasets import load_digits

from mmkd.data import CLASSES, make_digits
from mmkd.data.digits import SPLITS, Digit, Scene, SceneSampler
from mmkd.errors import InputError

SMALL = dict(num_train=6, num_val=4, image_size=64, min_digits=1, max_digits=3, max_size=24)


def sampler(**changes: int) -> SceneSampler:
    defaults = dict(image_size=96, min_digits=2, max_digits=5, min_size=16, max_size=32, seed=0)
    return SceneSampler(**{**defaults, **changes})


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def read(folder: Path, split: str) -> dict:
    return json.loads((folder / "annotations" / f"{split}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_digits(tmp_path_factory.mktemp("digits") / "both", **SMALL, layout="both")


# What is drawn


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("index", range(8))
def test_a_box_is_tight_around_the_pixels_that_its_digit_changes(split: str, index: int) -> None:
    """Oracle: paint each digit alone, white on black, and look at which pixels changed."""
    scene = sampler().scene(split, index)
    black = np.zeros_like(scene.background)
    for digit in scene.digits:
        white = Digit(digit.label, digit.source, digit.left, digit.top, (255.0,) * 3, digit.opacity)
        rows, columns = np.nonzero(Scene(black, (white,)).image()[..., 0])
        left, top, width, height = digit.box
        assert (columns.min(), rows.min()) == (left, top)
        assert (columns.max() + 1, rows.max() + 1) == (left + width, top + height)


@pytest.mark.parametrize("index", range(8))
def test_pixels_outside_every_box_are_background(index: int) -> None:
    scene = sampler().scene("train", index)
    outside = np.ones(scene.background.shape[:2], dtype=bool)
    for left, top, width, height in (digit.box for digit in scene.digits):
        outside[top : top + height, left : left + width] = False
    np.testing.assert_array_equal(scene.image()[outside], scene.background[outside])


def test_painting_blends_by_opacity() -> None:
    background = np.full((4, 4, 3), 100, np.uint8)
    opacity = np.array([[1.0, 0.5]], np.float32)
    image = Scene(background, (Digit(0, 0, 1, 2, (200.0, 100.0, 0.0), opacity),)).image()
    assert image[2, 1].tolist() == [200, 100, 0]
    assert image[2, 2].tolist() == [150, 100, 50]
    assert np.count_nonzero((image != 100).any(axis=-1)) == 2


@settings(deadline=None, derandomize=True, max_examples=25)
@given(seed=st.integers(0, 2**40), index=st.integers(0, 10**6), split=st.sampled_from(SPLITS))
def test_digits_lie_inside_the_image_and_apart(seed: int, index: int, split: str) -> None:
    scene = sampler(seed=seed).scene(split, index)
    assert 2 <= len(scene.digits) <= 5
    for digit in scene.digits:
        left, top, width, height = digit.box
        assert left >= 0 and top >= 0 and left + width <= 96 and top + height <= 96
        assert 8 <= height <= 45 and 2 <= width <= 45
    for a, b in combinations([digit.box for digit in scene.digits], 2):
        apart_across = a[0] + a[2] < b[0] or b[0] + b[2] < a[0]
        apart_down = a[1] + a[3] < b[1] or b[1] + b[3] < a[1]
        assert apart_across or apart_down


def test_labels_are_those_of_the_sources() -> None:
    labels = load_digits().target
    for split in SPLITS:
        for digit in (digit for i in range(20) for digit in sampler().scene(split, i).digits):
            assert digit.label == labels[digit.source]


def test_train_and_val_share_no_source() -> None:
    drawn = {
        split: {digit.source for i in range(150) for digit in sampler().scene(split, i).digits}
        for split in SPLITS
    }
    assert len(drawn["train"]) > 100 and len(drawn["val"]) > 100
    assert not drawn["train"] & drawn["val"]


def test_seed_split_and_index_each_change_the_scene() -> None:
    image = sampler().scene("train", 0).image()
    assert np.array_equal(image, sampler().scene("train", 0).image())
    for other in (
        sampler(seed=1).scene("train", 0),
        sampler().scene("val", 0),
        sampler().scene("train", 1),
    ):
        assert not np.array_equal(image, other.image())


# What is written


def test_coco_layout_loads_with_pycocotools_and_repeats_the_scenes(both: Path) -> None:
    scenes = SceneSampler(64, 1, 3, 18, 24, 0)
    for split, count in (("train", 6), ("val", 4)):
        coco = COCO(both / "annotations" / f"{split}.json")
        assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(CLASSES)
        assert coco.getCatIds() == list(range(1, 11))
        assert len(coco.imgs) == count == len(list((both / split).iterdir()))
        assert len(set(coco.anns)) == len(coco.anns)
        for index, image in enumerate(coco.loadImgs(sorted(coco.imgs))):
            scene = scenes.scene(split, index)
            pixels = cv2.imread(str(both / split / image["file_name"]))
            assert pixels.shape == (image["height"], image["width"], 3) == (64, 64, 3)
            np.testing.assert_array_equal(pixels, scene.image())
            found = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
            assert [tuple(a["bbox"]) for a in found] == [digit.box for digit in scene.digits]
            assert [a["category_id"] - 1 for a in found] == [d.label for d in scene.digits]
            assert all(a["area"] == a["bbox"][2] * a["bbox"][3] for a in found)
            assert all(a["iscrowd"] == 0 for a in found)


def test_yolo_labels_are_the_coco_boxes(both: Path) -> None:
    for split in SPLITS:
        coco = COCO(both / "annotations" / f"{split}.json")
        for image in coco.imgs.values():
            name = Path(image["file_name"])
            pixels = (both / "images" / split / name).read_bytes()
            assert pixels == (both / split / name).read_bytes()
            lines = (both / "labels" / split / name.with_suffix(".txt")).read_text().splitlines()
            annotations = coco.imgToAnns[image["id"]]
            assert len(lines) == len(annotations)
            for line, annotation in zip(lines, annotations, strict=True):
                label, x, y, width, height = (float(value) for value in line.split())
                box = [(x - width / 2) * 64, (y - height / 2) * 64, width * 64, height * 64]
                assert label == annotation["category_id"] - 1
                np.testing.assert_allclose(box, annotation["bbox"], rtol=0, atol=1e-6)


def test_data_yaml_names_the_classes_and_folders(both: Path) -> None:
    yaml = pytest.importorskip("yaml")
    data = yaml.safe_load((both / "data.yaml").read_text(encoding="utf-8"))
    assert data == {
        "train": "images/train",
        "val": "images/val",
        "names": dict(enumerate(CLASSES)),
    }


@pytest.mark.parametrize("layout", ["coco", "yolo"])
def test_one_layout_is_a_part_of_both(layout: str, both: Path, tmp_path: Path) -> None:
    one, whole = files(make_digits(tmp_path / layout, **SMALL, layout=layout)), files(both)
    one.pop("digits.json")
    assert one.items() <= whole.items()
    assert ("data.yaml" in one) == (layout == "yolo")


def test_the_same_settings_give_the_same_bytes(both: Path, tmp_path: Path) -> None:
    assert files(make_digits(tmp_path / "again", **SMALL, layout="both")) == files(both)


def test_a_larger_set_begins_with_the_smaller(both: Path, tmp_path: Path) -> None:
    larger = make_digits(tmp_path / "larger", **{**SMALL, "num_train": 9, "num_val": 5})
    for split in SPLITS:
        small, large = read(both, split), read(larger, split)
        for key in ("images", "annotations"):
            assert large[key][: len(small[key])] == small[key]
        for image in small["images"]:
            name = image["file_name"]
            assert (larger / split / name).read_bytes() == (both / split / name).read_bytes()


def test_numpy_global_state_is_left_alone(tmp_path: Path) -> None:
    np.random.seed(3)
    expected = np.random.random()
    np.random.seed(3)
    make_digits(tmp_path / "digits", **SMALL)
    assert np.random.random() == expected


# Where it is written


def test_an_equal_set_is_reused(tmp_path: Path) -> None:
    out = make_digits(tmp_path / "deep" / "digits", **SMALL)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert make_digits(str(out), **SMALL) == out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert [path.name for path in out.parent.iterdir()] == ["digits"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    assert make_digits(tmp_path, **SMALL) == tmp_path
    assert (tmp_path / "annotations" / "train.json").is_file()


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="other files"):
        make_digits(tmp_path / "notes", **SMALL)
    with pytest.raises(InputError, match="is a file"):
        make_digits(tmp_path / "notes" / "mine.txt", **SMALL)
    out = make_digits(tmp_path / "digits", **SMALL)
    before = files(out)
    with pytest.raises(FileExistsError, match="a digits set of other settings"):
        make_digits(out, **SMALL, seed=1)
    assert files(out) == before
    assert files(tmp_path / "notes") == {"mine.txt": b"mine"}


def test_a_failed_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: SceneSampler, split: str, index: int) -> Scene:
        raise OSError("disk full")

    monkeypatch.setattr(SceneSampler, "scene", fail)
    with pytest.raises(OSError, match="disk full"):
        make_digits(tmp_path / "digits", **SMALL)
    assert list(tmp_path.iterdir()) == []


# What is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(num_train=0), "num_train must be at least 1, got 0"),
        (dict(num_val=-2), "num_val must be at least 1, got -2"),
        (dict(seed=-1), "seed must not be negative, got -1"),
        (dict(min_digits=0), "min_digits=0"),
        (dict(min_digits=4), "min_digits=4, max_digits=3"),
        (dict(min_size=7), "min_size=7"),
        (dict(min_size=30), "min_size=30, max_size=24"),
        (dict(image_size=32), "got image_size=32"),
        (dict(layout="voc"), "layout must be one of coco, yolo, both, got 'voc'"),
        (dict(min_digits=30, max_digits=30), "do not fit side by side"),
    ],
)
def test_bad_values_are_refused(change: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        make_digits(tmp_path / "digits", **{**SMALL, **change})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", [dict(num_train=2.0), dict(seed=True), dict(image_size="64")])
def test_numbers_that_are_no_integers_are_refused(change: dict, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=f"{next(iter(change))} must be an integer"):
        make_digits(tmp_path / "digits", **{**SMALL, **change})
