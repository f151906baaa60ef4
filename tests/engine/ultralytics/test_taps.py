"""Which modules are tapped: by the models' own definitions, or by name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import ultralytics
import yaml
from torch import Tensor, nn
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

from helpers.yolo_toy import (
    Stopped,
    YOLOToy,
    attached,
    train,
    write_definition,
    write_teacher,
    yolov5,
)
from mmkd.engine.levels import Levels
from mmkd.engine.ultralytics.teacher import backbone_outputs, named_outputs
from mmkd.errors import SettingError
from mmkd.terms import Tap

MODELS = Path(ultralytics.__file__).parent / "cfg" / "models"

# Stride and channels of the outputs, from the papers' tables of widths.
BACKBONES: dict[str, dict[str, tuple[int, int]]] = {
    "yolov5n": {"model.4": (8, 64), "model.6": (16, 128), "model.9": (32, 256)},
    "yolov5s": {"model.4": (8, 128), "model.6": (16, 256), "model.9": (32, 512)},
    "yolov5m": {"model.4": (8, 192), "model.6": (16, 384), "model.9": (32, 768)},
    "yolov5l": {"model.4": (8, 256), "model.6": (16, 512), "model.9": (32, 1024)},
    "yolov5x": {"model.4": (8, 320), "model.6": (16, 640), "model.9": (32, 1280)},
    "yolov8n": {"model.4": (8, 64), "model.6": (16, 128), "model.9": (32, 256)},
    "yolov8s": {"model.4": (8, 128), "model.6": (16, 256), "model.9": (32, 512)},
    "yolo11n": {"model.4": (8, 128), "model.6": (16, 128), "model.10": (32, 256)},
    "yolo26n": {"model.4": (8, 128), "model.6": (16, 128), "model.10": (32, 256)},
    "yolov8n-p2": {
        "model.2": (4, 32),
        "model.4": (8, 64),
        "model.6": (16, 128),
        "model.9": (32, 256),
    },
}


def detector(name: str) -> DetectionModel:
    """Without initial weights, which take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Conv2d, "reset_parameters", lambda module: None)
        return DetectionModel(f"{name}.yaml", verbose=False).eval()


def find(model: Any, tap: Tap) -> Tap:
    return Levels(model, lambda: model(torch.zeros(1, 3, 64, 64)), (64, 64), named_outputs).find(
        tap
    )


# From the definition ----------------------------------------------------------------------


@pytest.mark.parametrize("name", BACKBONES)
def test_outputs_of_the_backbone(name: str) -> None:
    model = detector(name)
    shapes: dict[str, torch.Size] = {}

    def note(path: str) -> Any:
        return lambda module, args, output: shapes.__setitem__(path, output.shape)

    paths = backbone_outputs(model)
    for path in paths:
        model.get_submodule(path).register_forward_hook(note(path))
    with torch.no_grad():
        model(torch.zeros(1, 3, 64, 96))
    found = {path: (64 / shapes[path][2], 96 / shapes[path][3], shapes[path][1]) for path in paths}
    assert found == {path: (s, s, c) for path, (s, c) in BACKBONES[name].items()}
    # From fine to coarse, the last being the last layer of the backbone.
    assert paths == list(BACKBONES[name])
    assert paths[-1] == f"model.{len(model.yaml['backbone']) - 1}"


@pytest.mark.parametrize(
    ("level", "path"),
    [
        (-1, "model.9"),
        (-2, "model.6"),
        (-3, "model.4"),
        (0, "model.4"),
        (1, "model.6"),
        (2, "model.9"),
    ],
)
def test_levels(level: int, path: str) -> None:
    assert find(detector("yolov5n"), Tap("backbone", level)) == Tap(path, -1)


@pytest.mark.parametrize("level", [3, -4, "p3"])
def test_a_level_out_of_range(level: Any) -> None:
    with pytest.raises(ValueError) as error:
        find(detector("yolov5n"), Tap("backbone", level))
    for part in (f"level {level!r}", "3 outputs", "model.4, model.6, model.9"):
        assert part in str(error.value)


def test_what_is_named_is_tapped() -> None:
    model = detector("yolov5n")
    named = Tap("model.9.cv2", 0)
    assert find(model, named) == named
    # A model with a module of that name needs no definition.
    model.backbone = nn.Identity()
    assert find(model, Tap("backbone", -2)) == Tap("backbone", -2)


@pytest.mark.parametrize("level", range(3))
def test_levels_of_the_neck(level: int) -> None:
    """In YOLOv5 the head reads the layers 17, 20 and 23, of stride 8, 16 and 32."""
    model = detector("yolov5n")
    found = find(model, Tap("neck", level))
    assert found == Tap(("model.17", "model.20", "model.23")[level], -1)
    seen: list[Tensor] = []
    model.get_submodule(found.path).register_forward_hook(lambda m, a, output: seen.append(output))
    model(torch.zeros(1, 3, 64, 64))
    assert [feature.shape[2] for feature in seen] == [64 // (8, 16, 32)[level]]
    with pytest.raises(ValueError, match=r"level 3 was asked of a neck with 3 outputs: model\.17"):
        find(model, Tap("neck", 3))


def test_a_model_without_a_neck() -> None:
    with pytest.raises(ValueError, match=r"Sequential has no detection head .* instead of 'neck'"):
        find(nn.Sequential(nn.Conv2d(3, 4, 1)), Tap("neck"))


def test_a_model_without_a_definition() -> None:
    with pytest.raises(ValueError, match=r"Sequential has no definition .* name a module instead"):
        backbone_outputs(nn.Sequential(nn.Conv2d(3, 4, 1)))


# In training ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def v5(toy: YOLOToy) -> tuple[Path, Path]:
    """A small YOLOv5's definition, and a wider one's checkpoint with other classes."""
    student = write_definition(toy.folder / "v5.yaml", yolov5(), 0.125, 10)
    return student, write_teacher(write_definition(toy.folder / "v5t.yaml", yolov5(), 0.1875, 2))


def pairs(trainer: Any) -> dict[str, tuple[str, int, str, int]]:
    """Tap and channels of student and teacher, by term."""
    found = {}
    for term in trainer.distillation.terms:
        distiller = trainer.distillation.distiller(term)
        found[term.name] = (
            term.student[0].path,
            distiller.student_channels,
            term.teacher[0].path,
            distiller.teacher_channels,
        )
    return found


def two_iterations(toy: YOLOToy, model: YOLO) -> tuple[Any, list[Tensor]]:
    """The trainer, stopped where an epoch is over; and every projector's first weights."""
    first: list[Tensor] = []

    def start(trainer: Any) -> None:
        first.extend(weight.detach().clone() for weight in trained(trainer))

    def stop(trainer: Any) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        train(toy, model, on=dict(on_train_start=start, on_train_epoch_end=stop), batch=8)
    return model.trainer, first


def trained(trainer: Any) -> list[nn.Parameter]:
    """The projectors' weights."""
    distillers = trainer.distillation.distillers.children()
    return [distiller.projector.linear.weight for distiller in distillers]


def fires(trainer: Any, first: list[Tensor], *columns: str) -> None:
    """Every loss is there, finite and not 0, and every projector learns."""
    found = {k: float(v) for k, v in trainer.tloss.items() if k.startswith("kd")}
    assert tuple(found) == columns
    assert all(math.isfinite(value) and value != 0 for value in found.values())
    for before, after in zip(first, trained(trainer), strict=True):
        assert (after - before).abs().max() > 1e-6


def test_a_list_of_levels_and_names_in_one_training(toy: YOLOToy, v5: tuple[Path, Path]) -> None:
    terms = dict(
        every=dict(level=[0, 1, 2]),
        named=dict(student="model.9", teacher="model.9.cv1.conv"),
        crossed=dict(student_level=-1, teacher_level=-2),
    )
    trainer, first = two_iterations(toy, attached(toy, v5[0], terms, teacher=str(v5[1])))
    assert pairs(trainer) == dict(
        every_0=("model.4", 32, "model.4", 48),
        every_1=("model.6", 64, "model.6", 96),
        every_2=("model.9", 128, "model.9", 192),
        named=("model.9", 128, "model.9.cv1.conv", 96),
        crossed=("model.9", 128, "model.6", 96),
    )
    fires(trainer, first, *(f"kd_{name}_loss" for name in pairs(trainer)))


def test_levels_counted_from_the_end(toy: YOLOToy, v5: tuple[Path, Path]) -> None:
    terms = dict(b=dict(level=[-1, -2, -3]))
    trainer, first = two_iterations(toy, attached(toy, v5[0], terms, teacher=str(v5[1])))
    taps = [(student, teacher) for student, _, teacher, _ in pairs(trainer).values()]
    assert taps == [(path, path) for path in ("model.9", "model.6", "model.4")]
    fires(trainer, first, *(f"kd_{name}_loss" for name in pairs(trainer)))


@pytest.fixture(scope="module")
def v8n(toy: YOLOToy) -> Path:
    """A checkpoint of YOLOv8n."""
    content = yaml.safe_load((MODELS / "v8" / "yolov8.yaml").read_text(encoding="utf-8"))
    return write_teacher(write_definition(toy.folder / "v8n.yaml", content, 0.25, 5))


@pytest.mark.parametrize(
    ("family", "last", "channels"),
    [
        ("v8/yolov8", "model.9", 128),
        ("11/yolo11", "model.10", 128),
        ("26/yolo26", "model.10", 128),
    ],
)
def test_other_families(toy: YOLOToy, v8n: Path, family: str, last: str, channels: int) -> None:
    """Students of half a YOLO n's width, taught by YOLOv8n."""
    content = yaml.safe_load((MODELS / f"{family}.yaml").read_text(encoding="utf-8"))
    student = write_definition(toy.folder / Path(f"{family}.yaml").name, content, 0.125, 10)
    trainer, first = two_iterations(toy, attached(toy, student, teacher=str(v8n)))
    assert pairs(trainer) == dict(backbone=(last, channels, "model.9", 256))
    fires(trainer, first, "kd_loss")


# What does not exist ----------------------------------------------------------------------


def refuse(toy: YOLOToy, kind: type[Exception], v5: tuple[Path, Path], **term: Any) -> str:
    """The error of a training that must end before its first iteration."""

    def started(trainer: Any) -> None:
        raise AssertionError("training began")

    model = attached(toy, v5[0], dict(one=term), teacher=str(v5[1]))
    with pytest.raises(kind) as error:
        train(toy, model, on=dict(on_train_start=started))
    assert isinstance(error.value, kind) and isinstance(error.value, SettingError)
    assert error.value.setting and error.value.setting in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_no_such_tap(toy: YOLOToy, v5: tuple[Path, Path], side: str) -> None:
    error = refuse(toy, ValueError, v5, **{side: "model.9.cv3"})
    assert error.startswith(f"DistillCallback terms.one.{side}: DetectionModel has no module")
    assert "'model.9.cv3'. Close matches: " in error
    close = error.partition("Close matches: ")[2].partition(". ")[0].split(", ")
    assert {"model.9.cv1", "model.9.cv2"} <= set(close)


@pytest.mark.parametrize("side", ["student", "teacher"])
@pytest.mark.parametrize("level", [3, -4])
def test_no_such_level(toy: YOLOToy, v5: tuple[Path, Path], side: str, level: int) -> None:
    error = refuse(toy, ValueError, v5, **{f"{side}_level": level})
    assert error.startswith(f"DistillCallback terms.one.{side}: level {level} was asked of")
    assert "3 outputs: model.4, model.6, model.9" in error


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_a_level_of_a_single_output(toy: YOLOToy, v5: tuple[Path, Path], side: str) -> None:
    error = refuse(toy, ValueError, v5, **{side: "model.6", f"{side}_level": -2})
    assert error.startswith(f"DistillCallback terms.one.{side}: level -2 was asked of a single")


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_a_module_that_does_not_run(toy: YOLOToy, v5: tuple[Path, Path], side: str) -> None:
    """A list of branches is no step of the forward pass."""
    error = refuse(toy, RuntimeError, v5, **{side: "model.24.cv3"})
    assert error.startswith("DistillCallback " + ("student" if side == "student" else "teacher"))
    assert "the module 'model.24.cv3' did not run" in error
