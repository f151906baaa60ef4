"""What ``mmkd yolo train`` is wrongly given ends in one line, before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from typer.testing import CliRunner
from ultralytics.models.yolo.detect import DetectionTrainer

from helpers.yolo_toy import SIZE, YOLOToy, attached, plain, train
from mmkd.cli import app
from mmkd.data import make_digits
from mmkd.engine.ultralytics.arguments import check_data
from mmkd.errors import InputError


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set that nothing has scanned."""
    folder = tmp_path_factory.mktemp("digits")
    return make_digits(folder, num_train=2, num_val=1, image_size=SIZE, layout="yolo")


def refused(toy: YOLOToy, digits: Path, out: Path, given: dict[str, Any], *rest: str) -> str:
    """The one line in which the command ends, having written nothing."""
    settings = dict(model=toy.student, teacher=toy.teacher, data=digits / "data.yaml")
    settings |= dict(epochs=1, imgsz=SIZE, device="cpu", project=out / "runs") | given
    own = [f"{key}={value}" for key, value in settings.items() if value is not None]
    before = {file for folder in (out, digits) for file in folder.rglob("*")}
    failed = CliRunner().invoke(app, ["yolo", "train", *rest, *own])
    assert failed.exit_code == 2, (failed.output, failed.exception)
    assert isinstance(failed.exception, SystemExit)
    (line,) = failed.output.strip().splitlines()
    assert {file for folder in (out, digits) for file in folder.rglob("*")} == before
    prefix = "mmkd yolo train: "
    assert line.startswith(prefix)
    return line.removeprefix(prefix)


ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    (dict(epochs="abc"), "'epochs=abc' is of invalid type str"),
    (dict(epochs=0), "'epochs=0' is an invalid value"),
    (dict(epochs=-3), "'epochs=-3' is an invalid value"),
    (dict(lr0=-1), "'lr0=-1' is an invalid value"),
    (dict(epochss=3), "'epochss' is not a valid YOLO argument"),
    (dict(device=77), "device: Invalid CUDA 'device=77' requested"),
    (dict(device="abc"), "device: "),
    (dict(imgsz=-5), "imgsz: expected a number of pixels, 1 or more, got -5"),
    (dict(imgsz="abc"), "imgsz: expected a number of pixels, 1 or more, got 'abc'"),
    (dict(batch=-7), "batch: expected a number of images"),
    (dict(batch=2.5), "batch: expected a number of images"),
    (dict(workers=-3), "workers: expected a number, 0 or more, got -3"),
    (dict(time=-3), "time: expected hours, more than 0, got -3"),
    (dict(close_mosaic=-1), "close_mosaic: expected a number of epochs, 0 or more, got -1"),
    (dict(freeze="abc"), "freeze: expected a number of layers, or a list of layers, got 'abc'"),
    (dict(classes="abc"), "classes: expected a class, or a list of classes"),
    (dict(cfg="nosuch.yaml"), "cfg: no such file: nosuch.yaml"),
    (dict(resume=3), "resume: expected True or a file, got 3"),
    (dict(resume="nosuch.pt"), "resume: no such file: nosuch.pt"),
    (dict(resume=True), "resume: expected model=.../last.pt of a run that was stopped"),
    (dict(data=None), "data: it is missing: give data=FILE"),
    (dict(data="nosuch.yaml"), "data: 'nosuch.yaml' does not exist"),
    (dict(data=3), "data: expected a YAML file of a data set, got 3"),
    (dict(model="nosuch.yaml"), "model: nosuch.yaml cannot be opened: "),
    (dict(model="nosuch.pt"), "model: no such file: nosuch.pt"),
    (dict(model=3), "model: expected a definition (yolov5s.yaml) or a .pt file, got 3"),
    (dict(model="yolov8n-cls.yaml"), "DistillCallback.attach: expected a YOLO detector"),
    (dict(teacher=3), "DistillCallback teacher: "),
    (dict(teacher="nosuch.pt"), "DistillCallback teacher: no such file: nosuch.pt"),
    (dict(teacher="yolov5m.yaml"), "DistillCallback teacher: yolov5m.yaml defines a model with"),
    (dict(terms=3), "DistillCallback terms must be a dict"),
    ({"terms": 3, "terms.backbone.level": 1}, "does not fit the settings: "),
    ({"terms.backbone": 3}, "DistillCallback terms.backbone"),
    ({"terms.backbone.weight": "abc"}, "DistillCallback terms.backbone"),
    ({"terms.backbone.weight": -1}, "DistillCallback terms.backbone.weight must be 0 or more"),
    ({"terms.backbone.weight.share": 1}, "DistillCallback terms.backbone.weight: share must be"),
    (
        {"terms.backbone.weight.shar": 0.3},
        "DistillCallback terms.backbone.weight has no key 'shar'",
    ),
    ({"terms.backbone.level": 9}, "DistillCallback terms.backbone.student: level 9 was asked of"),
    ({"terms.backbone.level": "abc"}, "DistillCallback terms.backbone"),
    ({"terms.backbone.student": "model.99"}, "DistillCallback terms.backbone.student: "),
    ({"terms.backbone.teacher": "nosuch"}, "DistillCallback terms.backbone.teacher: "),
    ({"terms.backbone.loss.type": "mmkd.NoLoss"}, "DistillCallback terms.backbone"),
    ({"terms.backbone.view": "locl"}, "DistillCallback terms.backbone: view must be one of"),
    ({"terms.backbone.wieght": 1}, "DistillCallback terms.backbone"),
    ({"custom_imports": 3}, "custom_imports"),
]


@pytest.mark.parametrize(("given", "message"), ARGUMENTS, ids=lambda each: str(each)[:40])
def test_an_argument(
    toy: YOLOToy,
    digits: Path,
    tmp_path: Path,
    given: dict[str, Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(toy, digits, tmp_path, given)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n- 2\n", "cannot be read as a config: "),
        ("just words\n", "cannot be read as a config: "),
        ("3\n", "cannot be read as a config: "),
        ("1: 2\n", "cannot be read as a config: "),
        ("model: [\n", "cannot be read as a config: "),
        ("\x00", "cannot be read as a config: "),
        ("_base_: nosuch.yaml\n", "cannot be read as a config: "),
        ("terms: [1]\n", "DistillCallback terms must be a dict"),
        ("epochs: [1]\n", "'epochs=[1]' is of invalid type list"),
        ("project: [1]\n", "project: expected a folder, got [1]"),
    ],
)
def test_a_config(toy: YOLOToy, digits: Path, tmp_path: Path, text: str, message: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(text)
    given = {key: None for key in ("epochs", "project") if key in text}
    assert message in refused(toy, digits, tmp_path, given, str(config))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(train=None), "no such folder as train: None"),
        (dict(val=None), "val"),
        (dict(train="nowhere"), "no such folder as train: "),
        (dict(val="nowhere"), "images not found, missing path"),
        (dict(train=3), "'train' must be "),
        (dict(names=3), "names"),
        (dict(names=None), "'names' or 'nc'"),
        (dict(nc="many"), "'nc: many' must be an integer"),
        ("- 1\n", "is not a valid YAML mapping"),
        ("", "data: "),
        ("train: [\n", "data: "),
    ],
    ids=lambda each: str(each)[:40],
)
def test_a_data_set(toy: YOLOToy, digits: Path, tmp_path: Path, change: Any, message: str) -> None:
    content = yaml.safe_load((digits / "data.yaml").read_text()) | dict(path=str(digits))
    file = tmp_path / "set.yaml"
    file.write_text(change if isinstance(change, str) else yaml.safe_dump(content | change))
    line = refused(toy, digits, tmp_path, dict(data=file))
    assert line.startswith("data: ") and message in line


@pytest.mark.parametrize("batch", [4, -1])
def test_terms_are_tried_before_the_images_are_looked_at(
    toy: YOLOToy, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is the model that is trained, and no command has tried them."""

    def scan(*args: Any) -> None:
        raise AssertionError("the images were looked at")

    monkeypatch.setattr(DetectionTrainer, "build_dataset", scan)
    for term in (dict(level=9), dict(student="model.99"), dict(loss=dict(type="mmkd.NoLoss"))):
        with pytest.raises(InputError, match=r"DistillCallback terms\.one"):
            train(toy, attached(toy, terms=dict(one=term)), batch=batch)


@pytest.mark.parametrize("key", ["model", "teacher"])
@pytest.mark.parametrize("kind", ["empty", "words", "half", "tensors"])
def test_a_checkpoint(toy: YOLOToy, digits: Path, tmp_path: Path, key: str, kind: str) -> None:
    file, whole = tmp_path / "x.pt", toy.teacher.read_bytes()
    if kind == "tensors":
        torch.save(nn.Linear(2, 2).state_dict(), file)
    else:
        file.write_bytes(dict(empty=b"", words=b"words", half=whole[: len(whole) // 2])[kind])
    assert str(file) in refused(toy, digits, tmp_path, {key: file})


def test_a_finished_run_without_a_teacher(toy: YOLOToy, digits: Path, tmp_path: Path) -> None:
    """Ultralytics itself would train on a sample set that it downloads."""
    given = dict(model=plain(toy, epochs=1).last, teacher="None", resume=True)
    assert "is of a finished run" in refused(toy, digits, tmp_path, {**given, "data": None})


@pytest.mark.parametrize(
    ("source", "is_code"),
    [
        ("open('marker', 'w')", True),
        ("bash x.sh", True),
        (7, True),
        ("https://x.org/a.zip; ls", True),
        ("https://x.org/a.zip", False),
    ],
)
def test_code_that_would_make_a_data_set(
    source: Any, is_code: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = dict(path=".", train="a", val="b", names=["x"], download=source)
    (tmp_path / "set.yaml").write_text(yaml.safe_dump(content))
    if is_code:
        with pytest.raises(InputError, match="under 'download' is code, which is not executed"):
            check_data("set.yaml")
    else:
        check_data("set.yaml")
    assert not (tmp_path / "marker").exists()


def test_ultralytics_own_definitions_may_hold_code() -> None:
    check_data("coco.yaml")
