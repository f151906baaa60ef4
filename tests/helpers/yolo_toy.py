"""A small but real YOLO detector with its data, and runs of Ultralytics' own trainer."""

from __future__ import annotations

import csv
import gc
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import ultralytics
import yaml
from torch import Tensor, nn
from ultralytics import YOLO
from ultralytics.utils.torch_utils import unwrap_model

from mmkd.data import make_digits
from mmkd.engine.random_state import random_state
from mmkd.engine.ultralytics import DistillCallback

SIZE = 64
TERM = "backbone"

# The blocks of YOLOv5 in a few layers, heads at strides 8 and 16. Saving a checkpoint takes most
# of a small run's time, and that grows with the number of modules.
DEFINITION: dict[str, Any] = dict(
    nc=10,
    backbone=[
        [-1, 1, "Conv", [16, 6, 2, 2]],
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "SPPF", [32, 5]],
    ],
    head=[
        [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
        [[-1, 2], 1, "Concat", [1]],
        [-1, 1, "C3", [32, False]],
        [[7, 4], 1, "Detect", ["nc"]],
    ],
)
# The last backbone layer, and the channels of the teacher's.
TAP, TEACHER_CHANNELS = "model.4", 48
HEAD = "model.8"

Callbacks = dict[str, Callable[[Any], None]]


class Stopped(Exception):
    """Ends a training as an error of anything else would."""


@dataclass(frozen=True)
class YOLOToy:
    """Files of a toy training.

    Attributes:
        folder: For what runs write.
        data: Of 16 training and 4 validation images of 64 x 64 pixels.
        student: A definition.
        teacher: A checkpoint of a wider model with other classes.
    """

    folder: Path
    data: Path
    student: Path
    teacher: Path


def write_definition(file: Path, definition: Mapping[str, Any], width: float, nc: int) -> Path:
    """Writes a model's definition, its channels multiplied by ``width``."""
    content = {k: v for k, v in definition.items() if k != "scales"}
    scaled = {**content, "nc": nc, "width_multiple": width, "depth_multiple": 0.33}
    file.write_text(yaml.safe_dump(scaled), encoding="utf-8")
    return file


def yolov5() -> dict[str, Any]:
    """Ultralytics' own definition of YOLOv5."""
    file = Path(ultralytics.__file__).parent / "cfg" / "models" / "v5" / "yolov5.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def write_teacher(definition: Path, seed: int = 7) -> Path:
    """Writes a checkpoint of a model that looks trained: its BatchNorm has statistics."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = YOLO(definition)
        for key, buffer in model.model.named_buffers():
            if key.endswith("running_mean"):
                buffer.normal_(std=0.3)
            elif key.endswith("running_var"):
                buffer.uniform_(0.5, 2)
    file = definition.with_suffix(".pt")
    model.save(file)
    return file


def make_toy(folder: Path) -> YOLOToy:
    """Writes data, student and teacher."""
    # The trainer collects garbage several times a run: what was imported is none.
    gc.collect()
    gc.freeze()
    digits = make_digits(
        folder / "digits", layout="yolo", num_train=16, num_val=4, image_size=SIZE, max_digits=4
    )
    return YOLOToy(
        folder,
        digits / "data.yaml",
        write_definition(folder / "student.yaml", DEFINITION, 1.0, 10),
        write_teacher(write_definition(folder / "teacher.yaml", DEFINITION, 1.5, 3)),
    )


# Runs -------------------------------------------------------------------------------------

_names = (f"run{i}" for i in itertools.count())


# One term at a fixed weight, which is on from the first iteration.
LAST: dict[str, Any] = dict(backbone=dict())


def attached(toy: YOLOToy, model: Any = None, terms: Any = LAST, **settings: Any) -> YOLO:
    """A model (the toy student, unless given) with a distillation attached."""
    model = model if isinstance(model, YOLO) else YOLO(model or toy.student)
    settings.setdefault("teacher", str(toy.teacher))
    return DistillCallback(terms=terms, probe_size=SIZE, **settings).attach(model)


def train(toy: YOLOToy, model: YOLO, on: Callbacks | None = None, **args: Any) -> Any:
    """Trains for two epochs of four batches, one optimizer step each, unless told otherwise.

    Returns the trainer.

    Args:
        toy: Where the data are, and where the run writes.
        model: Plain, or from :func:`attached`.
        on: Callbacks by Ultralytics' names of events.
        **args: Of Ultralytics.
    """
    for event, function in (on or {}).items():
        model.add_callback(event, function)
    if not args.get("resume"):
        args = (
            dict(
                data=str(toy.data),
                epochs=2,
                batch=4,
                imgsz=SIZE,
                optimizer="SGD",
                nbs=4,
                warmup_epochs=1.0,
                project=str(toy.folder / "runs"),
                name=next(_names),
                plots=False,
                verbose=False,
                workers=0,
                device="cpu",
            )
            | args
        )
    model.train(**args)
    return model.trainer


def distil(toy: YOLOToy, terms: Any = LAST, **args: Any) -> Any:
    """Trains the toy student with a distillation, as :func:`train`; returns the trainer."""
    return train(toy, attached(toy, terms=terms), **args)


def plain(toy: YOLOToy, **args: Any) -> Any:
    """Trains the toy student without, as :func:`train`; returns the trainer."""
    return train(toy, YOLO(toy.student), **args)


def stop_at(epoch: int) -> Callbacks:
    """Callbacks that stop a training where an epoch (from 0) is about to begin."""

    def stop(trainer: Any) -> None:
        if trainer.epoch == epoch:
            raise Stopped

    return dict(on_train_epoch_start=stop)


def on_student(forward_hook: Callable[..., Any], module: str = HEAD) -> Callbacks:
    """Callbacks that hook into a module of the student in training; its head, unless named."""

    def start(trainer: Any) -> None:
        network(trainer).get_submodule(module).register_forward_hook(forward_hook)

    return dict(on_train_start=start)


def out_of_memory(at: int) -> Callable[..., None]:
    """A forward hook that runs out of memory once, in the training's forward pass ``at``."""
    calls = 0

    def fail(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal calls
        calls += module.training
        if calls == at:
            calls += 1
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    return fail


# What a run ends in -----------------------------------------------------------------------


def read_checkpoint(file: Path) -> dict[str, Any]:
    """A checkpoint's content."""
    return torch.load(file, map_location="cpu", weights_only=False)


def weights_of(file: Path) -> dict[str, Tensor]:
    """The weights in a checkpoint of Ultralytics'."""
    content = read_checkpoint(file)
    return (content.get("ema") or content["model"]).state_dict()


def read_results(trainer: Any) -> dict[str, list[float]]:
    """The columns of ``results.csv``; fails where a row has more or fewer entries."""
    with (Path(trainer.save_dir) / "results.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    return {
        name: [float(value) for value in column]
        for name, column in zip(header, zip(*rows, strict=True), strict=True)
    }


def timeless(results: Mapping[str, list[float]]) -> dict[str, list[float]]:
    """The columns that do not measure time."""
    return {key: value for key, value in results.items() if "time" not in key}


def end_of(trainer: Any) -> dict[str, Any]:
    """All that a run ends in, in memory and in its files."""
    distillation = getattr(trainer, "distillation", None)
    return dict(
        weights=unwrap_model(trainer.model).state_dict(),
        ema=trainer.ema.ema.state_dict(),
        updates=trainer.ema.updates,
        optimizer=trainer.optimizer.state_dict(),
        distillers=distillation.distillers.state_dict() if distillation else None,
        last=weights_of(trainer.last),
        best=weights_of(trainer.best),
        results=timeless(read_results(trainer)),
        random_state=random_state(),
    )


def network(trainer: Any) -> nn.Module:
    """The student in training."""
    return unwrap_model(trainer.model)
