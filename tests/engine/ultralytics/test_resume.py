"""A run that was stopped and resumed ends in the bits of one that was not."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.files import get_latest_run

from helpers.toy import differences
from helpers.yolo_toy import (
    TERM,
    Callbacks,
    Stopped,
    YOLOToy,
    attached,
    distil,
    end_of,
    on_student,
    out_of_memory,
    read_checkpoint,
    stop_at,
    train,
)
from mmkd.engine.ultralytics import resume

# Four batches an epoch, of which the last is smaller with 14 of the 16 images; an optimizer step
# in three batches, so that one spans the end of every epoch.
SPANNING = dict(nbs=12, epochs=3)
RAGGED = dict(fraction=0.875, epochs=3)
CONNECTORS = {
    TERM: dict(),
    "neck": dict(
        student="model.7",
        teacher="model.7",
        weight=0.3,
        projector=dict(type="mmkd.ConvConnector"),
        schedule=dict(begin=0.5, ramp=2),
    ),
}
SETTINGS: dict[str, dict[str, Any]] = {
    # Mosaic is closed in the last epoch, or in the middle one: after or before the second stop.
    "SGD": dict(optimizer="SGD", close_mosaic=1, **SPANNING),
    "AdamW": dict(optimizer="AdamW", close_mosaic=2, multi_scale=0.5, mixup=0.5, **RAGGED),
    "MuSGD": dict(optimizer="MuSGD", close_mosaic=1, terms=CONNECTORS, **{**SPANNING, **RAGGED}),
    "Ultralytics' defaults": dict(optimizer="auto", nbs=64, warmup_epochs=3.0, epochs=3),
    # In the first epoch, which then begins again with batches of two.
    "out of memory": dict(close_mosaic=1, **SPANNING),
}


@dataclass
class Whole:
    """A run that was not stopped: what it ended in, and copies of its folder after each epoch."""

    end: dict[str, Any]
    folders: list[Path]


@pytest.fixture(scope="module")
def whole(toy: YOLOToy) -> Callable[[str], Whole]:
    @cache
    def run(name: str) -> Whole:
        folders: list[Path] = []

        def copy(trainer: Any) -> None:
            source = Path(trainer.save_dir)
            folders.append(source.with_name(f"{source.name}-after-{trainer.epoch + 1}"))
            shutil.copytree(source, folders[-1])

        on: Callbacks = dict(on_model_save=copy)
        if name == "out of memory":
            on |= on_student(out_of_memory(2))
        trainer = distil(toy, on=on, **SETTINGS[name])
        return Whole(comparable(trainer), folders)

    return run


def comparable(trainer: Any) -> dict[str, Any]:
    """What a run ends in, without a mark that Ultralytics sets in groups that it has loaded."""
    end = end_of(trainer)
    for group in end["optimizer"]["param_groups"]:
        assert not group.pop("fused", None)
    return end


def stopped(toy: YOLOToy, **settings: Any) -> Path:
    """The ``last.pt`` of a distilled run that was stopped after its first epoch."""
    model = attached(toy)
    with pytest.raises(Stopped):
        train(toy, model, on=stop_at(1), **settings)
    return model.trainer.last


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("name", SETTINGS)
def test_it_ends_where_the_run_would_have_ended(
    toy: YOLOToy, whole: Callable[[str], Whole], name: str, epochs: int
) -> None:
    folder = whole(name).folders[epochs - 1]
    model = attached(toy, folder / "weights" / "last.pt", SETTINGS[name].get("terms"))
    resumed = comparable(train(toy, model, resume=True, save_dir=str(folder)))
    assert differences(whole(name).end, resumed) == []
    # What was compared holds the projectors, and what the optimizer keeps of them.
    assert resumed["distillers"]
    assert len(resumed["results"]["epoch"]) == 3
    optimizer = resumed["optimizer"]
    own = optimizer["param_groups"][-1]["params"]
    assert own
    assert set(own) <= set(optimizer["state"])


def test_a_seeded_run_repeats_to_the_bit(toy: YOLOToy, whole: Callable[[str], Whole]) -> None:
    again = comparable(distil(toy, **SETTINGS["SGD"]))
    assert differences(whole("SGD").end, again) == []
    assert differences(distillers_at_start(toy), distillers_at_start(toy, seed=1))


def test_after_an_error_in_the_middle_of_an_epoch(
    toy: YOLOToy, whole: Callable[[str], Whole]
) -> None:
    """As a user goes on: in the same folder, by ``resume=True`` alone."""
    seen = 0

    def stop(trainer: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == 7:
            raise Stopped

    model = attached(toy)
    with pytest.raises(Stopped):
        train(toy, model, on=dict(on_train_batch_end=stop), **SETTINGS["SGD"])
    last = model.trainer.last
    resumed = train(toy, attached(toy, last), resume=True)
    assert resumed.last == last
    assert differences(whole("SGD").end, comparable(resumed)) == []


def test_after_a_kill(toy: YOLOToy, whole: Callable[[str], Whole]) -> None:
    def kill(trainer: Any) -> None:
        if trainer.epoch == 1 and trainer.optimizer.param_groups[0]["lr"] > 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def run() -> None:
        # Its library waits for threads that a forked process lacks.
        DetectionTrainer.read_results_csv = lambda trainer: {}
        distil(toy, on=dict(on_train_batch_end=kill), name="killed", **SETTINGS["SGD"])

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    last = toy.folder / "runs" / "killed" / "weights" / "last.pt"
    assert read_checkpoint(last)["epoch"] == 0
    resumed = train(toy, attached(toy, last), resume=True)
    assert differences(whole("SGD").end, comparable(resumed)) == []


def test_a_save_that_fails_leaves_the_file_of_the_epoch_before(
    toy: YOLOToy, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, saved = torch.save, 0

    def fail(content: Any, file: Any) -> None:
        nonlocal saved
        saved += 1
        if saved == 4:  # The second of the second epoch.
            Path(file).write_bytes(b"half a file")
            raise OSError("no space left")
        save(content, file)

    monkeypatch.setattr(resume.torch, "save", fail)
    model = attached(toy)
    with pytest.raises(OSError, match="no space left"):
        train(toy, model)
    monkeypatch.undo()
    last = model.trainer.last
    content = read_checkpoint(last)
    assert content["epoch"] == 0
    assert "mmkd" in content
    # Ultralytics looks for the newest 'last*.pt' where it is to resume and no file is named.
    assert Path(get_latest_run(str(model.trainer.save_dir))) == last


# What cannot be resumed -----------------------------------------------------------------------


def test_from_a_plain_run(toy: YOLOToy) -> None:
    model = YOLO(toy.student)
    with pytest.raises(Stopped):
        train(toy, model, on=stop_at(1))
    message = (
        r"DistillCallback: .*last\.pt holds no state of a distillation\. Resume from the last\.pt "
        r"of an interrupted distilled run; or start a new run from these weights, without resume"
    )
    with pytest.raises(ValueError, match=message):
        train(toy, attached(toy, model.trainer.last), resume=True)


def test_with_other_terms(toy: YOLOToy) -> None:
    other = attached(toy, stopped(toy), dict(another=dict()))
    with pytest.raises(RuntimeError, match=r"(?s)match the run that is resumed\?.*another"):
        train(toy, other, resume=True)


def test_projectors_are_not_taken_where_weights_only_initialise(toy: YOLOToy) -> None:
    """A new run from an interrupted run's student begins with projectors of its own."""
    last = stopped(toy)
    trained = read_checkpoint(last)["mmkd"]["distillers"]
    begun = distillers_at_start(toy, last)
    assert differences(begun, distillers_at_start(toy)) == []
    assert len(differences(begun, trained)) == len(trained)


def distillers_at_start(toy: YOLOToy, model: Path | None = None, **settings: Any) -> dict:
    """The distillers of a run that is about to begin."""
    state: dict[str, Tensor] = {}

    def keep(trainer: Any) -> None:
        state.update(trainer.distillation.distillers.state_dict())
        raise Stopped

    with pytest.raises(Stopped):
        train(toy, attached(toy, model), on=dict(on_train_start=keep), **settings)
    return state


def test_a_finished_run_has_nothing_to_resume(toy: YOLOToy) -> None:
    """Ultralytics then starts a new run from its weights, and so does a distilled one."""
    finished = distil(toy, epochs=1)
    settings = dict(data=str(toy.data), epochs=1, imgsz=64, batch=4, plots=False, device="cpu")
    model = attached(toy, finished.last)
    model.train(resume=True, project=str(toy.folder / "runs"), name="new", **settings)
    assert model.trainer.save_dir.name == "new"
    assert model.trainer.start_epoch == 0
