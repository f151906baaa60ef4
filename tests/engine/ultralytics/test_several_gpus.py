"""The processes that Ultralytics starts for several GPUs distil as well."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from torch import nn
from ultralytics.engine import trainer as stock
from ultralytics.utils import USER_CONFIG_DIR
from ultralytics.utils.patches import torch_load, torch_save

from helpers.two_on_cpu import TwoProcesses
from helpers.yolo_toy import YOLOToy, attached, network, read_results, timeless, train, weights_of
from mmkd.engine.ultralytics import DistillCallback, DistillTrainer


def run(command: Sequence[str], check: bool = True) -> None:
    """As ``subprocess.run``, on the CPU; ends whatever the command has started."""
    process = subprocess.Popen(
        command,
        env=dict(os.environ, CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=240)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == 0, output[-6000:]


def generated() -> list[Path]:
    """Files that Ultralytics writes for its processes, and removes again."""
    return list((USER_CONFIG_DIR / "DDP").glob("*"))


# Two processes ----------------------------------------------------------------------------

Rank = dict[str, Any]


@pytest.fixture(scope="module")
def two(toy: YOLOToy) -> tuple[list[Rank], Any]:
    """What each process recorded; and the trainer that started them."""
    project = toy.folder / "two"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stock.subprocess, "run", run)
        trainer = train(
            toy,
            attached(toy),
            trainer=TwoProcesses,
            project=str(project),
            epochs=1,
            # Four iterations of two images each, and a step every second.
            batch=4,
            nbs=8,
        )
    files = [project / f"rank{rank}.pt" for rank in range(2)]
    return [torch.load(file, weights_only=False) for file in files], trainer


def test_the_processes_were_started_by_ultralytics(two: tuple[list[Rank], Any]) -> None:
    ranks, trainer = two
    assert trainer.ddp and trainer.distillation is None
    assert all(rank["wrapped"] for rank in ranks)
    assert generated() == []


def test_both_processes_end_with_the_same_weights(two: tuple[list[Rank], Any]) -> None:
    (first, second), _ = two
    for moment in ("initial", "final"):
        assert first[moment].keys() == second[moment].keys()
        for name, weight in first[moment].items():
            assert torch.equal(weight, second[moment][name]), (moment, name)
    projector = [name for name in first["final"] if name.startswith("projector.")]
    assert len(projector) == 2
    for name in (projector[0], "model.0.conv.weight"):
        assert name.endswith("weight")
        assert not torch.equal(first["initial"][name], first["final"][name])


def test_a_step_takes_the_average_gradient(two: tuple[list[Rank], Any]) -> None:
    """Of all that was accumulated, over the processes."""
    (first, second), _ = two
    assert len(first["steps"]) == len(second["steps"]) == 2
    for ours, theirs in zip(first["steps"], second["steps"], strict=True):
        for name, gradient in ours["own"].items():
            assert torch.equal(ours["stepped"][name], (gradient + theirs["own"][name]) / 2)
            assert torch.equal(ours["stepped"][name], theirs["stepped"][name])
        weight = next(name for name in ours["own"] if name.endswith("weight"))
        assert ours["stepped"][weight].any()
        assert not torch.allclose(ours["own"][weight], theirs["own"][weight])


def test_the_loss_is_reported_and_that_of_the_joined_batch(two: tuple[list[Rank], Any]) -> None:
    (first, second), trainer = two
    assert first["loss"] == pytest.approx(second["loss"], rel=1e-6)
    results = read_results(trainer)
    assert results["train/kd_loss"] == [pytest.approx(first["loss"], rel=1e-4)]
    assert 0 < results["train/kd_loss"][0] < 100
    assert results["distill/backbone"] == [pytest.approx(first["loss"], rel=1e-4)]


def test_the_checkpoint_is_the_students(two: tuple[list[Rank], Any], toy: YOLOToy) -> None:
    (first, _), trainer = two
    weights = weights_of(trainer.best)
    named = {name for name in first["final"] if not name.startswith("projector.")}
    assert named <= set(weights)
    assert not any("projector" in name for name in weights)


# A child that is rebuilt from the generated file ------------------------------------------


@contextmanager
def as_if_on_two_gpus(launch: Callable[[Path], None]) -> Iterator[list[dict[str, Any]]]:
    """Lets the stock trainer believe in two GPUs; yields what it hands to its processes.

    Args:
        launch: Is given the generated file, in place of the launcher of processes.
    """
    states: list[dict[str, Any]] = []

    def start(command: Sequence[str], check: bool) -> None:
        file = Path(command[-1])
        state = torch_load(file.with_suffix(".pt"), map_location="cpu")
        states.append(dict(state, args=dict(state["args"])))
        state["args"]["device"] = "cpu"
        torch_save(state, file.with_suffix(".pt"), pickle_module=cloudpickle)
        launch(file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stock, "select_device", lambda *args, **kwargs: torch.device("cuda", 0))
        patch.setattr(stock.subprocess, "run", start)
        yield states


def handed_on(toy: YOLOToy, model: Any, **args: Any) -> dict[str, Any]:
    """What a training on two GPUs would hand to its processes."""
    ended = pytest.raises(FileNotFoundError, match="no checkpoint was saved")
    with ended, as_if_on_two_gpus(lambda file: None) as states:
        train(toy, model, device="0,1", epochs=1, **args)
    (state,) = states
    return state


def settings_in(state: dict[str, Any]) -> DistillCallback:
    """The settings among the callbacks that were handed on."""
    (owner,) = [
        function.__self__
        for functions in state["callbacks"].values()
        for function in functions
        if isinstance(getattr(function, "__self__", None), DistillCallback)
    ]
    return owner


def test_a_child_attaches_the_distiller(toy: YOLOToy) -> None:
    """The whole way: ``model.train(device=[0, 1])``, and a process of its own."""
    terms = dict(one=dict(weight=0.5), two=dict(level=0))
    with as_if_on_two_gpus(lambda file: run([sys.executable, str(file)])) as states:
        trainer = train(toy, attached(toy, terms=terms), device=[0, 1], epochs=1, batch=8)
    assert type(trainer) is DistillTrainer
    (state,) = states
    assert (state["trainer"], state["args"]["device"]) == (DistillTrainer, "0,1")
    results = {key: value for key, (value,) in read_results(trainer).items()}
    for key in ("train/kd_one_loss", "train/kd_two_loss", "distill/one", "distill/two"):
        assert results[key] != 0, key
    assert results["train/kd_one_loss"] == pytest.approx(0.5 * results["distill/one"], rel=1e-4)
    # It did what this process does.
    alone = train(toy, attached(toy, terms=terms), epochs=1, batch=8)
    ours = timeless({key: value for key, value in read_results(alone).items()})
    assert {key for key in ours if results[key] != pytest.approx(ours[key][0], rel=1e-4)} == set()
    assert network(alone).state_dict().keys() == weights_of(trainer.best).keys()
    assert generated() == []


def test_what_is_handed_on(toy: YOLOToy) -> None:
    terms = dict(one=dict(weight=0.5), two=dict(level=0))
    state = handed_on(toy, attached(toy, terms=terms), lr0=0.003)
    assert (state["args"]["lr0"], state["args"]["data"]) == (0.003, str(toy.data))
    assert [term.name for term in settings_in(state).terms] == ["one", "two"]
    # Each process adds the trainer's own callbacks itself.
    names = [f.__qualname__ for functions in state["callbacks"].values() for f in functions]
    assert not any(name.startswith(("DistillTrainer", "ExactResume")) for name in names)


def test_a_module_in_memory_is_handed_on(toy: YOLOToy) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 32, stride=32))
    (teacher,) = settings_in(handed_on(toy, attached(toy, teacher=module))).teachers.values()
    assert teacher.module is not module
    assert torch.equal(teacher.module[0].weight, module[0].weight)


# What cannot be handed on -----------------------------------------------------------------


class Locked(nn.Module):
    """Holds what no process can hand to another."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 32, stride=32)
        self.lock = threading.Lock()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with self.lock:
            return self.layer(images)


def test_settings_that_cannot_be_handed_on(toy: YOLOToy) -> None:
    def launch(file: Path) -> None:
        raise AssertionError("a process was started")

    with pytest.raises(RuntimeError) as error, as_if_on_two_gpus(launch):
        train(toy, attached(toy, teacher=Locked()), device="0,1", epochs=1)
    text = str(error.value)
    assert text.startswith("DistillCallback: ")
    for part in ("several GPUs", "new processes", "lock", "as a file", "one GPU"):
        assert part in text
    assert generated() == []
