"""An Ultralytics detector teaches a Faster R-CNN student in MMEngine's Runner."""

from __future__ import annotations

import math
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.runner import Runner
from torch import Tensor

from helpers.detector import detector_config
from helpers.toy import (
    LossRecorder,
    Probe,
    checkpoint_of,
    distill,
    distill_hook_of,
    toy_config,
    train,
)
from mmkd.terms import Tap

CHANNELS = {"model.4": 48, "model.6": 96, "model.9": 192}


@pytest.fixture(scope="module")
def yolov5(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A YOLOv5 checkpoint; Ultralytics' settings stay out of the user's home."""
    if "ultralytics" not in sys.modules:
        os.environ["YOLO_CONFIG_DIR"] = str(tmp_path_factory.mktemp("settings"))
        os.environ["YOLO_OFFLINE"] = "true"
    from helpers import yolo_toy

    definition = tmp_path_factory.mktemp("yolo") / "teacher.yaml"
    yolo_toy.write_definition(definition, yolo_toy.yolov5(), 0.1875, 5)
    return str(yolo_toy.write_teacher(definition))


class Watch:
    """What the student's preprocessor returned, and what the teacher's modules were given."""

    def __init__(self) -> None:
        self.student: list[Tensor] = []
        self.teacher: list[Tensor] = []
        self.calls: Counter[str] = Counter()
        self.probe = Probe(before_train=self.start)

    def start(self, runner: Runner) -> None:
        (teacher,) = distill_hook_of(runner).teachers.values()
        self.model = teacher.model
        preprocess = runner.model.data_preprocessor.forward

        def forward(data: Any, training: bool = False) -> Any:
            prepared = preprocess(data, training)
            if training:
                self.student.append(prepared["inputs"].double())
            return prepared

        runner.model.data_preprocessor.forward = forward
        teacher.model.register_forward_pre_hook(lambda m, args: self.teacher.append(args[0]))
        for name, module in teacher.model.named_modules():
            module.register_forward_pre_hook(lambda m, a, name=name: self.calls.update([name]))


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, digits: Path, yolov5: str
) -> tuple[Runner, Watch, LossRecorder]:
    """An epoch of three iterations with the last output, and the one before, of the teacher."""
    terms = dict(last=dict(), finer=dict(teacher_level=-2, weight=0.5))
    settings = distill(dict(yolo=yolov5), terms)
    settings["train_cfg.max_epochs"] = 1
    watch, losses = Watch(), LossRecorder()
    config = detector_config(digits, tmp_path_factory.mktemp("run"), **settings)
    return train(config, watch.probe, losses), watch, losses


Run = tuple[Runner, Watch, LossRecorder]


def test_its_images_are_rgb_between_0_and_1(run: Run) -> None:
    runner, watch, _ = run
    preprocessor = runner.model.data_preprocessor
    mean, std = (preprocessor.get_buffer(k).double().view(3, 1, 1) for k in ("mean", "std"))
    assert float(mean.min()) > 1 and float(std.min()) > 1
    assert len(watch.student) == len(watch.teacher) == 3
    for prepared, seen in zip(watch.student, watch.teacher, strict=True):
        loaded = prepared * std + mean
        rgb = loaded if preprocessor._channel_conversion else loaded[:, [2, 1, 0]]
        torch.testing.assert_close(seen.double(), rgb / 255, rtol=0, atol=1e-6)
        assert -1e-6 < seen.min() < 0.3 and 0.7 < seen.max() < 1 + 1e-6


def test_taps_are_those_of_its_own_definition(run: Run) -> None:
    runner, watch, _ = run
    hook = distill_hook_of(runner)
    found = {term.name: term.teacher for term in hook.terms}
    assert found == dict(last=(Tap("model.9"),), finer=(Tap("model.6"),))
    for term in hook.terms:
        distiller = hook.distillers[term.name]
        assert distiller.teacher_channels == CHANNELS[term.teacher[0].path]
        assert distiller.student_channels == 64
    layers = {name: count for name, count in watch.calls.items() if name.count(".") == 1}
    assert layers == {f"model.{index}": 3 for index in range(10)}
    assert not any(module.training for module in watch.model.modules())


def test_the_distances_enter_the_objective(run: Run) -> None:
    _, _, losses = run
    assert len(losses.logged) == 3
    for logged in losses.logged:
        assert all(math.isfinite(value) for value in logged.values())
        assert logged["distill_last"] != 0 and logged["distill_finer"] != 0
        assert logged["loss_distill_last"] == pytest.approx(logged["distill_last"])
        assert logged["loss_distill_finer"] == pytest.approx(0.5 * logged["distill_finer"])
        total = sum(value for key, value in logged.items() if key.startswith("loss_"))
        assert logged["loss"] == pytest.approx(total, rel=1e-5)


def test_the_students_checkpoint_is_a_plain_one(run: Run, digits: Path, tmp_path: Path) -> None:
    runner, _, _ = run
    plain = Runner.from_cfg(detector_config(digits, tmp_path))
    weights = checkpoint_of(runner, "epoch_1.pth")["state_dict"]
    assert list(weights) == list(plain.model.state_dict())
    plain.model.load_state_dict(weights, strict=True)


@pytest.mark.parametrize(
    ("file", "kind", "text"),
    [
        ("no/such/teacher.pt", FileNotFoundError, "no such file: no/such/teacher.pt"),
        ("yolov5m.yaml", ValueError, "yolov5m.yaml defines a model without trained weights"),
        ("teacher.pth", ValueError, "expected a .pt file of Ultralytics', got teacher.pth"),
    ],
)
def test_no_such_teacher(
    tmp_path: Path, yolov5: str, file: str, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind) as error:
        train(toy_config(tmp_path, **distill(dict(yolo=file))))
    assert str(error.value).startswith(f"DistillHook teacher: {text}")


def test_no_such_tap(tmp_path: Path, yolov5: str) -> None:
    terms = dict(one=dict(teacher="model.9.cv3"))
    with pytest.raises(ValueError) as error:
        train(toy_config(tmp_path, **distill(dict(yolo=yolov5), terms)))
    for part in ("DistillHook terms.one.teacher", "'model.9.cv3'", "Close matches", "model.9.cv2"):
        assert part in str(error.value)


def test_no_such_level(tmp_path: Path, yolov5: str) -> None:
    with pytest.raises(ValueError) as error:
        train(toy_config(tmp_path, **distill(dict(yolo=yolov5), dict(one=dict(teacher_level=3)))))
    for part in ("DistillHook terms.one.teacher", "level 3", ", ".join(CHANNELS)):
        assert part in str(error.value)
