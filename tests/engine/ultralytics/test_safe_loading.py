"""Checkpoints are data: no file of Ultralytics' is executed, on whatever way it comes in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import ultralytics
from torch import Tensor, nn
from ultralytics import YOLO
from ultralytics.nn import tasks

from helpers.yolo_toy import DEFINITION, SIZE, YOLOToy, read_checkpoint, train, write_definition
from mmkd.engine.ultralytics import DistillCallback
from mmkd.engine.ultralytics.resume import _rewrite, check_resume
from mmkd.engine.ultralytics.safe_loading import SWITCH, load_safely
from mmkd.engine.ultralytics.teacher import YOLO_FORMAT, named_outputs, run_detector
from mmkd.engine.ultralytics.train import prepare
from mmkd.errors import InputError
from mmkd.evaluation.coco_files import read_annotations
from mmkd.runs.detect import detect_with


class Runs:
    """Unpickling it creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return exec, (f"open({str(self.marker)!r}, 'w')",)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


@pytest.fixture
def hostile(toy: YOLOToy, tmp_path: Path, marker: Path) -> Path:
    """A whole checkpoint of an interrupted run, with something beside it."""
    content = read_checkpoint(toy.teacher)
    file = tmp_path / "evil.pt"
    torch.save({**content, "epoch": 0, "optimizer": {}, "extra": Runs(marker)}, file)
    return file


def built(toy: YOLOToy, teacher: Any) -> str:
    """A teacher's introduction."""
    student = tasks.DetectionModel(str(toy.student), verbose=False)
    settings = DistillCallback(teacher, probe_size=SIZE).settings
    distillation = settings.build(
        student, YOLO_FORMAT, run_detector, lambda: (64, 64), named=named_outputs
    )
    return distillation.teachers["teacher"].introduction


def refused(file: Path, error: pytest.ExceptionInfo) -> bool:
    text = str(error.value)
    advice = ("weights_only", "safe_globals", "torch.load")
    return str(file) in text and "\n" not in text and not any(each in text for each in advice)


def test_the_teacher(toy: YOLOToy, hostile: Path, marker: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"DistillCallback teacher: .*evil\.pt .* not executed: it names builtins.exec",
    ) as error:
        built(toy, str(hostile))
    assert refused(hostile, error) and "allow_pickle=True" in str(error.value)
    assert not marker.exists()


def test_a_teacher_that_is_trusted(toy: YOLOToy, hostile: Path, marker: Path) -> None:
    introduction = built(toy, dict(yolo=str(hostile), allow_pickle=True))
    assert marker.exists()
    assert f"from {hostile} (sha256 " in introduction
    marker.unlink()
    # Executed where it is needed alone.
    introduction = built(toy, dict(yolo=str(toy.teacher), allow_pickle=True))
    assert "tensors loaded, 0 missing, 0 of another shape, 0 unexpected" in introduction


@pytest.mark.parametrize("key", ["model", "pretrained", "resume"])
@pytest.mark.parametrize("teacher", [True, False])
def test_what_a_training_starts_from(
    toy: YOLOToy, hostile: Path, marker: Path, key: str, teacher: bool
) -> None:
    settings: dict[str, Any] = dict(model=str(toy.student), data=str(toy.data))
    settings |= {"teacher": str(toy.teacher) if teacher else None, key: str(hostile)}
    with pytest.raises(InputError, match=rf"^{key}: ") as error:
        prepare(settings)
    assert refused(hostile, error)
    assert not marker.exists()


def test_pretrained_in_python(toy: YOLOToy, hostile: Path, marker: Path) -> None:
    model = DistillCallback(str(toy.teacher)).attach(ultralytics.YOLO(toy.student))
    with pytest.raises(InputError, match=r"^pretrained: .* not executed") as error:
        train(toy, model, pretrained=str(hostile))
    assert refused(hostile, error) and SWITCH in str(error.value)
    assert not marker.exists()


def test_evaluation(toy: YOLOToy, hostile: Path, marker: Path, tmp_path: Path) -> None:
    from mmkd.data import make_digits

    digits = make_digits(tmp_path / "digits", num_train=2, num_val=2, image_size=64)
    annotations = read_annotations(digits / "annotations/val.json")
    with pytest.raises(InputError, match=r"evil\.pt .* not executed") as error:
        detect_with(hostile, annotations, digits / "val", tmp_path / "found.json")
    assert refused(hostile, error) and f"{SWITCH}=0" in str(error.value)
    assert not marker.exists()


def test_pipes_and_devices(toy: YOLOToy, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    for key in ("model", "pretrained", "teacher"):
        settings = dict(model=str(toy.student), teacher=str(toy.teacher), data=str(toy.data))
        settings[key] = str(tmp_path / "pipe.pt")
        with pytest.raises(InputError, match="found a device or a pipe"):
            prepare(settings)
            built(toy, settings["teacher"])


# The switch -------------------------------------------------------------------------------


def test_the_switch_is_on() -> None:
    assert os.environ[SWITCH] == "1"
    assert tasks.SAFE_LOAD and ultralytics.utils.SAFE_LOAD


@pytest.mark.parametrize(("given", "expected"), [(None, True), ("0", False)])
def test_a_user_s_own_word_counts(
    given: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (tasks, ultralytics.utils):
        monkeypatch.setattr(module, "SAFE_LOAD", False)
    monkeypatch.setenv(SWITCH, given or "")
    if given is None:
        monkeypatch.delenv(SWITCH)
    load_safely()
    assert (tasks.SAFE_LOAD, ultralytics.utils.SAFE_LOAD) == (expected, expected)
    assert os.environ[SWITCH] == ("1" if expected else "0")


def test_a_file_that_the_user_lets_run(
    toy: YOLOToy, hostile: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "SAFE_LOAD", False)
    prepare(dict(model=str(hostile), teacher=str(toy.teacher), data=str(toy.data)))
    assert marker.exists()


def test_the_command(toy: YOLOToy, hostile: Path, marker: Path) -> None:
    """As users start it: Ultralytics is imported before or after the switch is set."""
    environment = {k: v for k, v in os.environ.items() if k != SWITCH}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mmkd", "yolo", "train", f"model={hostile}"),
            *(f"teacher={toy.teacher}", f"data={toy.data}", "resume"),
        ],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"mmkd yolo train: model: {hostile} is no checkpoint")
    assert "not executed" in last and f"{SWITCH}=0" in last
    assert not marker.exists()


# The user's own layers --------------------------------------------------------------------


class Doubled(nn.Module):
    """A layer that only this file knows."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def test_a_run_of_own_layers_reads_its_own_files(
    toy: YOLOToy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "Doubled", Doubled, raising=False)
    backbone = [*DEFINITION["backbone"][:-1], [-1, 1, "Doubled", []]]
    student = write_definition(tmp_path / "own.yaml", {**DEFINITION, "backbone": backbone}, 1.0, 10)
    model = DistillCallback(str(toy.teacher)).attach(ultralytics.YOLO(student))
    trainer = train(toy, model, epochs=1)
    assert isinstance(model.model.model[4], Doubled)
    assert trainer.best.is_file()
    # As a teacher, it is built from the classes that are there.
    assert "0 missing, 0 of another shape, 0 unexpected" in built(toy, str(trainer.best))


def test_the_best_checkpoint_of_a_run_that_goes_on(
    hostile: Path, tmp_path: Path, marker: Path
) -> None:
    """It lies beside the one that was looked at, and is stripped in the end."""
    with pytest.raises(InputError, match=r"evil\.pt .* is not executed: it names builtins\.exec"):
        _rewrite(hostile, tmp_path / "target.pt", {})
    assert not marker.exists()


@pytest.mark.parametrize("data", ["http://127.0.0.1:1/coco8.yaml", dict(train="x"), "own.yaml"])
def test_what_a_checkpoint_names_as_data(
    toy: YOLOToy, tmp_path: Path, marker: Path, data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    script = f"open({str(marker)!r}, 'w')"
    Path("own.yaml").write_text(f"path: .\ntrain: a\nval: b\nnames: [x]\ndownload: {script}\n")
    content = {**read_checkpoint(toy.teacher), "epoch": 0, "optimizer": {}}
    torch.save({**content, "train_args": dict(data=data, epochs=9)}, "l.pt")
    with pytest.raises(InputError, match=r"^data: "):
        check_resume(YOLO("l.pt"), True)
    assert not marker.exists()
