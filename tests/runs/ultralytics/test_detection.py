"""Work dirs of Ultralytics' own trainer are read, and their checkpoints detect."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionValidator

from helpers.yolo_toy import SIZE, YOLOToy, distil, plain, read_results
from mmkd.cli import app
from mmkd.data import make_digits
from mmkd.errors import InputError
from mmkd.evaluation import evaluate_detections
from mmkd.evaluation.coco_files import Annotations, read_annotations, read_detections
from mmkd.runs.detect import detect_with
from mmkd.runs.ultralytics.detection import detect
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


@pytest.fixture(scope="module")
def sure(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector that is sure of much."""
    model = YOLO(trained.last)
    for branch in model.model.model[-1].cv3:
        branch[-1].bias.data += 4  # of the classes
    file = tmp_path_factory.mktemp("sure") / "sure.pt"
    model.save(file)
    return file


def test_detections(sure: Path, digits: Path, tmp_path: Path) -> None:
    annotations = read_annotations(digits / "annotations/val.json")
    # Named as one of Ultralytics' own, in whose place it would look for another file.
    checkpoint = tmp_path / "yolov5n.pt"
    checkpoint.write_bytes(sure.read_bytes())
    detected = detect_with(checkpoint, annotations, digits / "val", tmp_path / "found.json")
    model = YOLO(sure)
    detect(model, annotations.file, digits / "val", tmp_path / "expected.json", SIZE)
    expected = json.loads((tmp_path / "expected.json").read_text())
    assert json.loads(detected.detections.read_text()) == expected and expected
    assert detected.parameters == sum(each.numel() for each in model.model.parameters())


def test_they_are_those_of_ultralytics_own_validation(
    sure: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For images of many shapes, which share rectangles with padded borders."""
    data = make_digits(tmp_path, num_train=1, num_val=18, image_size=SIZE, layout="both")
    annotations = read_annotations(data / "annotations/val.json")
    images = data / "images/val"
    for index, name in enumerate(annotations.file_names[:12]):
        with Image.open(images / name) as image:
            narrow = image.crop((0, 0, SIZE - 4 * (index % 6), SIZE))
        rotated = Image.Exif()
        if index >= 6:
            rotated[0x0112] = 6  # EXIF: to be turned by 90 degrees
        narrow.save(images / name, exif=rotated)
    monkeypatch.setattr(DetectionValidator, "eval_json", lambda validator, stats: stats)
    settings = dict(save_json=True, plots=False, device="cpu", project=str(tmp_path), name="own")
    YOLO(sure).val(data=str(data / "data.yaml"), **settings)
    ours, theirs = tmp_path / "ours.json", tmp_path / "own/predictions.json"
    detect_with(sure, annotations, images, ours)
    found, expected = (_by_image(file, annotations) for file in (ours, theirs))
    assert sum(map(len, found)) > 1000
    for boxes, own in zip(found, expected, strict=True):
        np.testing.assert_allclose(boxes, own, atol=1e-3)  # to which theirs are rounded
    scores = [evaluate_detections(annotations.file, file).as_dict() for file in (ours, theirs)]
    assert scores[0] == pytest.approx(scores[1], abs=0.05)


def _by_image(file: Path, annotations: Annotations) -> list[np.ndarray]:
    """Each image's boxes with class and score."""
    found = read_detections(file, annotations)
    rows = np.column_stack([found.category, found.boxes, found.scores])
    return [rows[found.image == image] for image in range(len(annotations.image_ids))]


def test_a_report_of_checkpoints(
    trained: Any, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the logs of its training, and alone."""
    monkeypatch.chdir(tmp_path)
    alone = Path(shutil.copy(trained.last, tmp_path / "alone.pt"))
    options = ["--annotations", digits / "annotations/val.json", "--images", digits / "val"]

    def run(*arguments: Any) -> Result:
        return CliRunner().invoke(app, [*map(str, arguments), "--resamples", "0"])

    scored = run("eval", options[1], f"a={alone}", *options[2:], "--json", "scores.json")
    assert scored.exit_code == 0, scored.output
    score = json.loads(Path("scores.json").read_text())["runs"]["a"]["metrics"]["mAP"]["mean"]
    done = run("report", f"distilled={trained.last}", alone, *options)
    assert done.exit_code == 0, done.output
    page = Path("report.html").read_text()
    for name in ("distilled", "alone"):
        assert f"<dt>{name}, mAP</dt><dd>{score:.1f}<" in page
    # The curves are the training's.
    assert "distill/ratio" in page
    for arguments, message in (
        ([alone], "alone.pt is a checkpoint: give the objects by --annotations"),
        ([alone, *options[:2]], "give the images' folder by --images"),
        (["gone.pt", *options], "gone.pt: expected a checkpoint, found no such file"),
    ):
        failed = run("report", *arguments)
        assert failed.exit_code == 2 and message in " ".join(failed.stderr.split())


def test_other_classes(trained: Any, digits: Path, tmp_path: Path) -> None:
    content = json.loads((digits / "annotations/val.json").read_text())
    content["categories"][0]["name"] = "zero"
    file = tmp_path / "truth.json"
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"'zero'.*last\.pt \['0'"):
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
    with pytest.raises(InputError, match=r"other\.pt cannot be read as a checkpoint of"):
        detect_with(file, annotations, digits / "val", tmp_path / "found.json")


def test_a_plain_run_has_no_teacher(toy: YOLOToy) -> None:
    work = read_work_dir(plain(toy, epochs=1).save_dir)
    assert (work.teacher, work.notes) == ({}, [])
    assert not {"distillation", "ratio"} & {curve.group for curve in work.curves}
