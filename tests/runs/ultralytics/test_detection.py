"""Work dirs of Ultralytics' own trainer are read, and their checkpoints detect."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from ultralytics import YOLO

from helpers.yolo_toy import SIZE, YOLOToy, distil, plain, read_results
from mmkd.data import make_digits
from mmkd.errors import InputError
from mmkd.evaluation.coco_files import read_annotations
from mmkd.runs.detect import detect_with
from mmkd.runs.ultralytics.recipe import detect
from mmkd.work_dirs import read_work_dir


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set in COCO format."""
    folder = tmp_path_factory.mktemp("digits")
    return make_digits(folder, num_train=1, num_val=5, image_size=SIZE, max_digits=4)


@pytest.fixture(scope="module")
def trained(toy: YOLOToy) -> Any:
    return distil(toy, epochs=2, seed=3)


def test_the_work_dir(trained: Any) -> None:
    work = read_work_dir(trained.save_dir)
    assert (work.framework, work.seed) == ("ultralytics", 3)
    assert work.checkpoint == trained.last
    assert work.settings["imgsz"] == SIZE
    columns = read_results(trained)
    del columns["time"]
    epochs = columns.pop("epoch")
    curves = {curve.name: curve for curve in work.curves}
    assert set(curves) == {*columns, "task_loss"}
    for name, values in columns.items():
        scale = 100 if name.startswith("metrics/") else 1
        scaled = [scale * value for value in values]
        assert curves[name].points == list(zip(epochs, scaled, strict=True))
    groups = {curve.name: curve.group for curve in work.curves}
    assert groups["train/kd_loss"] == groups["distill/backbone"] == "distillation"
    assert groups["distill/ratio"] == "ratio"


def test_detections(trained: Any, digits: Path, tmp_path: Path) -> None:
    annotations = read_annotations(digits / "annotations/val.json")
    raised = YOLO(trained.last)
    for branch in raised.model.model[-1].cv3:
        branch[-1].bias.data += 4  # of the classes: it is sure of much by now
    raised.save(tmp_path / "raised.pt")
    # Named as one of Ultralytics' own, in whose place it would look for another file.
    checkpoint = tmp_path / "yolov5n.pt"
    checkpoint.write_bytes((tmp_path / "raised.pt").read_bytes())
    detected = detect_with(checkpoint, annotations, digits / "val", tmp_path / "found.json")
    model = YOLO(tmp_path / "raised.pt")
    detect(model, annotations.file, digits / "val", tmp_path / "expected.json", SIZE)
    expected = json.loads((tmp_path / "expected.json").read_text())
    assert json.loads(detected.detections.read_text()) == expected and expected
    assert detected.parameters == sum(each.numel() for each in model.model.parameters())


def test_other_classes(trained: Any, digits: Path, tmp_path: Path) -> None:
    content = json.loads((digits / "annotations/val.json").read_text())
    content["categories"][0]["name"] = "zero"
    file = tmp_path / "truth.json"
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"'zero'.*detector \['0'"):
        detect_with(trained.last, read_annotations(file), digits / "val", tmp_path / "found.json")
    assert not (tmp_path / "found.json").exists()


@pytest.mark.parametrize("content", [b"", b"no image", "half"])
def test_a_damaged_image(content: bytes | str, trained: Any, digits: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(digits / "val", images)
    annotations = read_annotations(digits / "annotations/val.json")
    damaged = images / annotations.file_names[2]
    whole = damaged.read_bytes()
    damaged.write_bytes(content if isinstance(content, bytes) else whole[: len(whole) // 2])
    with pytest.raises(InputError, match=rf"{damaged.name} cannot be read as an image: replace it"):
        detect_with(trained.last, annotations, images, tmp_path / "found.json")
    assert not (tmp_path / "found.json").exists()


def test_no_checkpoint(digits: Path, tmp_path: Path) -> None:
    file = tmp_path / "other.pt"
    file.write_text("no checkpoint")
    annotations = read_annotations(digits / "annotations/val.json")
    with pytest.raises(InputError, match=r"other\.pt is no checkpoint of Ultralytics'"):
        detect_with(file, annotations, digits / "val", tmp_path / "found.json")


def test_a_plain_run_has_no_teacher(toy: YOLOToy) -> None:
    work = read_work_dir(plain(toy, epochs=1).save_dir)
    assert (work.teacher, work.notes) == ({}, [])
    assert not {"distillation", "ratio"} & {curve.group for curve in work.curves}
