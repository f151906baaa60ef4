"""The files of a distilled run are those of a plain run, for whoever has never heard of mmkd."""

from __future__ import annotations

import csv
import pickle
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from ultralytics import YOLO

import helpers
from helpers.toy import differences
from helpers.yolo_toy import (
    SIZE,
    YOLOToy,
    attached,
    read_checkpoint,
    train,
    weights_of,
    write_definition,
    yolov5,
)

FILES = ("best", "last", "interrupted")
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass
class Files:
    """The checkpoints of a run of three epochs; ``interrupted`` is ``last.pt`` after the first."""

    best: Path
    last: Path
    interrupted: Path

    def read(self, name: str) -> dict[str, Any]:
        return read_checkpoint(getattr(self, name))


def files_of(toy: YOLOToy, model: YOLO) -> Files:
    def copy(trainer: Any) -> None:
        if trainer.epoch == 0:
            source = Path(trainer.save_dir)
            shutil.copytree(source, source.with_name(f"{source.name}-interrupted"))

    trainer = train(toy, model, on=dict(on_model_save=copy), epochs=3, optimizer="AdamW", lr0=0.002)
    folder = Path(trainer.save_dir)
    interrupted = folder.with_name(f"{folder.name}-interrupted") / "weights" / "last.pt"
    return Files(trainer.best, trainer.last, interrupted)


@pytest.fixture(scope="module")
def definition(toy: YOLOToy) -> Path:
    """All of YOLOv5's layers, with few channels."""
    return write_definition(toy.folder / "yolov5-narrow.yaml", yolov5(), 1 / 16, 10)


@pytest.fixture(scope="module")
def distilled(toy: YOLOToy, definition: Path) -> Files:
    return files_of(toy, attached(toy, definition))


@pytest.fixture(scope="module")
def plain(toy: YOLOToy, definition: Path) -> Files:
    return files_of(toy, YOLO(definition))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def found(
    toy: YOLOToy, distilled: Files, images: Tensor, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What a process without mmkd finds; it works on copies."""
    folder = tmp_path_factory.mktemp("without")
    torch.save(images, folder / "images.pt")
    given = {}
    for name in FILES:
        source: Path = getattr(distilled, name)
        shutil.copytree(source.parents[1], folder / name)
        given[name] = folder / name / "weights" / source.name
    script = Path(helpers.__file__).with_name("without_mmkd.py")
    command = [sys.executable, script, folder, toy.data, *(f"{k}={v}" for k, v in given.items())]
    ran = subprocess.run([str(each) for each in command], capture_output=True, text=True, cwd="/")
    assert ran.returncode == 0, ran.stderr
    return {**read_checkpoint(folder / "found.pt"), "folder": folder}


# In a process without mmkd ------------------------------------------------------------------


def test_it_had_no_mmkd_and_needed_neither_network_nor_installer(found: dict[str, Any]) -> None:
    assert found["mmkd"] == ["mmkd"]  # None stands there, which no import passes.
    # Torch asks for its devices' tools; nothing is installed, and no other machine is looked for.
    assert [each for each in found["events"] if "socket" in each or "install" in each] == []


@pytest.mark.parametrize("name", FILES)
def test_it_computes_what_the_weights_say(
    found: dict[str, Any], distilled: Files, definition: Path, images: Tensor, name: str
) -> None:
    model = YOLO(definition).model.eval()
    model.load_state_dict(weights_of(getattr(distilled, name)))
    with torch.no_grad():
        assert torch.allclose(found[name]["output"], model(images)[0], atol=1e-4)


@pytest.mark.parametrize("name", FILES)
def test_it_validates_and_predicts(found: dict[str, Any], name: str) -> None:
    assert set(found[name]["metrics"]) == {
        *(f"metrics/{key}(B)" for key in ("precision", "recall", "mAP50", "mAP50-95")),
        "fitness",
    }
    assert len(found[name]["boxes"]) == 2
    for boxes in found[name]["boxes"]:
        assert boxes.shape[1] == 6
        assert len(boxes) > 0
        assert boxes[:, :4].min() >= 0
        assert boxes[:, :4].max() <= SIZE


@pytest.mark.parametrize("name", FILES)
def test_the_exported_network_computes_the_same(found: dict[str, Any], name: str) -> None:
    output, exported = found[name]["output"], found[name]["exported"]
    assert output.shape == exported.shape
    assert torch.allclose(output, exported, rtol=1e-3, atol=1e-3)


def test_a_plain_trainer_goes_on_from_an_interrupted_run(
    found: dict[str, Any], toy: YOLOToy, distilled: Files
) -> None:
    assert found["resumed"] == dict(trainer="DetectionTrainer", epochs=3)
    # To the bit as from the same file without the state of the distillation.
    content = distilled.read("interrupted")
    assert content.pop("mmkd")
    folder = toy.folder / "runs" / "stripped"
    shutil.copytree(distilled.interrupted.parents[1], folder)
    torch.save(content, folder / "weights" / "last.pt")
    expected = train(toy, YOLO(folder / "weights" / "last.pt"), resume=True, save_dir=str(folder))
    ended = weights_of(found["folder"] / "interrupted" / "weights" / "last.pt")
    assert differences(weights_of(expected.last), ended) == []


def test_a_plain_trainers_rows_go_under_their_columns(found: dict[str, Any], plain: Files) -> None:
    """It appends to the ``results.csv`` of the distilled run."""

    def read(file: Path) -> tuple[list[str], list[list[str]]]:
        with file.open(encoding="utf-8", newline="") as lines:
            header, *rows = csv.reader(lines)
        return header, rows

    header, rows = read(found["folder"] / "interrupted" / "results.csv")
    plain_header, plain_rows = read(plain.last.parents[1] / "results.csv")
    assert len(rows) == 3
    for row, expected in zip(rows, plain_rows, strict=True):
        values = dict(zip(header, row, strict=False))
        for name in ("epoch", "lr/pg0", "lr/pg2", "metrics/mAP50(B)"):
            assert values.get(name) == dict(zip(plain_header, expected, strict=True))[name]


# The content ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["best", "last"])
def test_a_finished_file_is_that_of_a_plain_run(distilled: Files, plain: Files, name: str) -> None:
    content, expected = distilled.read(name), plain.read(name)
    assert list(content) == list(expected)
    # Empty where they are empty, and of the same kinds where not.
    assert [type(v) for v in content.values()] == [type(v) for v in expected.values()]
    own = {"name", "save_dir"}
    arguments, plain_arguments = content["train_args"], expected["train_args"]
    assert set(arguments) == set(plain_arguments)
    assert {k for k in arguments if arguments[k] != plain_arguments[k]} <= own
    assert list(content["train_metrics"]) == list(expected["train_metrics"])
    assert_same_architecture(content["model"], expected["model"])


def test_an_interrupted_file_holds_one_more_key(distilled: Files, plain: Files) -> None:
    content, expected = distilled.read("interrupted"), plain.read("interrupted")
    assert list(content) == [*expected, "mmkd"]
    assert content["epoch"] == expected["epoch"] == 0
    assert content["updates"] == expected["updates"] == 4
    assert_same_architecture(content["ema"], expected["ema"])


def test_an_interrupted_files_optimizer_is_that_of_a_plain_run(
    distilled: Files, plain: Files
) -> None:
    content, expected = (files.read("interrupted")["optimizer"] for files in (distilled, plain))
    assert differences(content["param_groups"], expected["param_groups"]) == []
    assert list(content["state"]) == list(expected["state"])
    for index, state in content["state"].items():
        assert list(state) == list(expected["state"][index]) == ["step", "exp_avg", "exp_avg_sq"]
        for key, value in state.items():
            other = expected["state"][index][key]
            assert (value.shape, value.dtype) == (other.shape, other.dtype)


def assert_same_architecture(model: Any, plain: Any) -> None:
    """The same modules, attributes, parameters and buffers, and nothing of mmkd."""
    assert [(n, type(m)) for n, m in model.named_modules()] == [
        (n, type(m)) for n, m in plain.named_modules()
    ]
    for module, other in zip(model.modules(), plain.modules(), strict=True):
        assert set(vars(module)) == set(vars(other))
        assert not any(vars(module)[hooks] for hooks in HOOKS)
    weights, expected = model.state_dict(), plain.state_dict()
    assert {k: (v.shape, v.dtype) for k, v in weights.items()} == {
        k: (v.shape, v.dtype) for k, v in expected.items()
    }
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in plain.parameters())
    # The two runs did train differently.
    assert differences(weights, expected)
    assert b"mmkd" not in pickle.dumps(model)
