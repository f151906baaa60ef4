"""Checkpoints of the YOLOv5 repository teach, and start a student."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import LOGGER

from helpers.original_yolov5 import Original, architecture, make_original, save_original
from helpers.yolo_toy import (
    DEFINITION,
    SIZE,
    Stopped,
    YOLOToy,
    network,
    train,
    write_definition,
    yolov5,
)
from mmkd.checkpoint import read_weights
from mmkd.engine.plain import distill
from mmkd.engine.ultralytics import DistillCallback
from mmkd.engine.ultralytics.architecture import build_detector
from mmkd.engine.ultralytics.teacher import YOLO_FORMAT, YOLOTeacher
from mmkd.engine.ultralytics.train import prepare
from mmkd.errors import InputError
from mmkd.terms import Tap, Term

WIDTH = 1 / 16
HEAD = "model.24"


@pytest.fixture(scope="module")
def original() -> Original:
    """As a file holds it: rounded to half precision."""
    return make_original(architecture(WIDTH, nc=3)).half().float()


@pytest.fixture(scope="module")
def file(original: Original, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_original(tmp_path_factory.mktemp("original") / "yolov5n.pt", original, version=7)


def build(file: Path, *taps: Tap) -> Any:
    terms = [Term(f"t{i}", "teacher", teacher=(tap,)) for i, tap in enumerate(taps)]
    blank = torch.zeros(1, 3, SIZE, SIZE)
    return YOLOTeacher("Owner teacher", str(file)).build(terms, YOLO_FORMAT, blank)


def own_outputs(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    handles = [
        layer.register_forward_hook(lambda m, a, out, i=i: found.update({f"model.{i}": out}))
        for i, layer in enumerate(model.model)
    ]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return found


# As a teacher -----------------------------------------------------------------------------


@pytest.mark.parametrize("version", [6, 7])
def test_its_features_are_its_own(original: Original, version: int, tmp_path: Path) -> None:
    file = save_original(tmp_path / "best.pt", original, version, ema=True)
    levels = [Tap("backbone", level) for level in (-3, -2, -1)]
    teacher, terms = build(file, *levels, *(Tap("neck", level) for level in (0, 1, 2)))
    images = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))
    expected = own_outputs(original, images)
    found = teacher.features(images)
    paths = [tap.path for term in terms for tap in term.teacher]
    assert paths == [f"model.{index}" for index in (4, 6, 9, 17, 20, 23)]
    for path in paths:
        assert expected[path].std() > 1e-2
        torch.testing.assert_close(found[path], expected[path], rtol=1e-4, atol=1e-5)
    said = teacher.introduction
    assert f"DetectionModel of 3 classes from {file} (sha256 " in said
    assert "342 tensors loaded" in said
    assert f"its head {HEAD} works with anchors, its 7 tensors have no place here" in said


def test_its_head_does_not_teach(file: Path) -> None:
    with pytest.raises(InputError, match=rf"does not fit the teacher.*{HEAD}\S+ is missing"):
        build(file, Tap(f"{HEAD}.cv2.0"))


def test_in_a_loop_of_one_s_own(file: Path) -> None:
    student = nn.Sequential(nn.Conv2d(3, 8, 3, 16), nn.Conv2d(8, 8, 1))
    terms = dict(a=dict(student="1", teacher="backbone", teacher_level=-2))
    images = torch.rand(2, 3, SIZE, SIZE)
    settings = dict(images=dict(std=[255] * 3), probe_size=SIZE)
    with distill(student, dict(yolo=str(file)), terms, **settings) as distillation:
        student(images)
        distillation.loss(images).backward()
    assert float(student[0].weight.grad.abs().sum()) > 0


def test_weights_that_are_missing_or_of_another_shape(original: Original, tmp_path: Path) -> None:
    model = make_original(architecture(WIDTH, nc=3))
    del model.model[4].cv3.bn.running_mean
    model.model[6].cv1.conv.weight = nn.Parameter(torch.zeros(1, 1, 1, 1))
    file = save_original(tmp_path / "best.pt", model)
    problem = r"model\.4\.cv3\.bn\.running_mean is missing; model\.6\.cv1\.conv\.weight is \(1,"
    with pytest.raises(InputError, match=problem):
        build(file, Tap("backbone", -1))
    # What lies behind the deepest tap does not matter.
    build(file, Tap("model.3"))


def test_a_layer_that_computes_something_else(tmp_path: Path) -> None:
    model = make_original(architecture(WIDTH, nc=3))
    model.model[9].cv1.act = nn.Identity()
    model.model[1].conv.stride = (1, 1)
    model.model[2].cv1.bn.eps = 1e-5
    file = save_original(tmp_path / "best.pt", model)
    with pytest.raises(InputError, match="other modules than this version") as error:
        build(file, Tap("backbone", -1))
    for problem in (
        "model.1.conv.stride is (1, 1) there, (2, 2) here",
        "model.2.cv1.bn.eps is 1e-05 there, 0.001 here",
        "model.9.cv1.act is Identity there, SiLU here",
    ):
        assert problem in str(error.value)


# Architectures that were made to harm -------------------------------------------------------


def with_layer(row: Any, **more: Any) -> Original:
    model = make_original(architecture(WIDTH, nc=3))
    model.yaml = {**architecture(WIDTH, nc=3), **more}
    if row is not None:
        model.yaml["backbone"][1] = row
    return model


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (with_layer([-1, 10**9, "Conv", [128, 3, 2]]), "a layer 1000000000 times"),
        (with_layer(None, depth_multiple=1e9), "a layer 3 times"),
        (with_layer([-1, 1, "Conv", [10**6, 3, 2]]), r"plans 5\d{6} values"),
        (with_layer(None, nc=10**8), r"plans \d{9,} values"),
        (with_layer([-1, 1, "load_checkpoint", ["x"]]), "not a permitted model layer"),
        (with_layer([-1, 1, "NoLayer", [1]]), "KeyError"),
        (with_layer(None, activation="open('executed', 'w')"), "activation"),
    ],
)
def test_architectures(
    model: Original, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics.nn import tasks
    from ultralytics.nn.modules.conv import Conv

    # Where the user lets Ultralytics execute files, this reader does not.
    monkeypatch.setattr(tasks, "SAFE_LOAD", False)
    monkeypatch.chdir(tmp_path)
    activation = Conv.default_act
    source = read_weights(save_original(tmp_path / "best.pt", model))
    with pytest.raises(ValueError, match=rf"its architecture cannot be built here.*{reason}"):
        build_detector(source)
    assert not (tmp_path / "executed").exists()
    assert Conv.default_act is activation
    assert tasks.SAFE_LOAD is False


# As the start of a student ------------------------------------------------------------------


@pytest.fixture(scope="module")
def definition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_definition(tmp_path_factory.mktemp("d") / "narrow.yaml", yolov5(), WIDTH, 10)


def begun(toy: YOLOToy, model: YOLO, **arguments: Any) -> dict[str, Tensor]:
    """The student's weights where its training begins."""

    def stop(trainer: Any) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        train(toy, model, on=dict(on_train_start=stop), **arguments)
    return network(model.trainer).state_dict()


def from_settings(toy: YOLOToy, definition: Path, **settings: Any) -> tuple[YOLO, dict[str, Any]]:
    return prepare(dict(model=str(definition), data=str(toy.data), **settings))


@pytest.mark.parametrize("way", ["callback", "command", "plain"])
def test_it_starts_a_student(
    toy: YOLOToy,
    definition: Path,
    original: Original,
    file: Path,
    way: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments: dict[str, Any] = dict(pretrained=str(file))
    if way == "callback":
        model = DistillCallback(str(toy.teacher), probe_size=SIZE).attach(YOLO(definition))
    else:
        teacher = str(toy.teacher) if way == "command" else None
        model, arguments = from_settings(toy, definition, teacher=teacher, **arguments)
    monkeypatch.setattr(LOGGER, "propagate", True)
    with caplog.at_level(logging.INFO, logger=LOGGER.name):
        weights = begun(toy, model, **arguments)
    given = original.state_dict()
    fitting = [key for key in weights if key in given]
    assert len(fitting) == 342
    assert all(torch.equal(weights[key], given[key]) for key in fitting)
    # Its head is drawn from the run's seed, as ever.
    fresh = begun(toy, YOLO(definition))
    drawn = [key for key in weights if key.startswith(f"{HEAD}.")]
    assert len(drawn) + 342 == len(weights)
    assert all(torch.equal(weights[key], fresh[key]) for key in drawn)
    assert f"pretrained: {file} (sha256 " in caplog.text and "342 tensors loaded" in caplog.text
    assert f"its head {HEAD} works with anchors" in caplog.text


def test_a_checkpoint_of_ultralytics_starts_one_as_ever(toy: YOLOToy) -> None:
    stock = YOLO(toy.student)
    expected = begun(toy, stock, pretrained=str(toy.teacher), trainer=DetectionTrainer)
    attached = DistillCallback(str(toy.teacher), probe_size=SIZE).attach(YOLO(toy.student))
    found = begun(toy, attached, pretrained=str(toy.teacher))
    assert list(found) == list(expected)
    assert all(torch.equal(value, expected[key]) for key, value in found.items())


def test_as_the_model_itself_it_is_refused(
    toy: YOLOToy, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"model: .*yolov5n\.pt .* whose head Ultralytics cannot"):
        from_settings(toy, file, teacher=str(toy.teacher))
    # Beside a model that has weights already, Ultralytics reads it before the trainer does.
    with pytest.raises(InputError, match=r"pretrained: .* the model has weights: give model= a"):
        from_settings(toy, toy.teacher, teacher=str(toy.teacher), pretrained=str(file))


def test_nothing_of_it_fits(toy: YOLOToy, tmp_path: Path) -> None:
    tiny = save_original(tmp_path / "other.pt", make_original(architecture(1 / 32, nc=3)))
    wide = write_definition(tmp_path / "wide.yaml", DEFINITION, 5.0, 10)
    with pytest.raises(InputError, match=r"^pretrained: .*other\.pt: none of its weights fits"):
        model, arguments = from_settings(toy, wide, teacher=str(toy.teacher), pretrained=str(tiny))
        train(toy, model, **arguments)


def test_a_layer_that_downloads_weights(tmp_path: Path) -> None:
    model = make_original(architecture(WIDTH, nc=3))
    model.yaml = copy.deepcopy(model.yaml)
    model.yaml["backbone"][3][2] = "TorchVision"
    file = save_original(tmp_path / "best.pt", model)
    with pytest.raises(InputError, match="TorchVision, which downloads weights"):
        build(file, Tap("backbone", -1))
