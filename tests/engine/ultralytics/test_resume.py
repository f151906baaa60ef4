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
    LAST,
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
    read_results,
    stop_at,
    train,
    write_teacher,
)
from mmkd.engine.ultralytics import resume
from mmkd.errors import InputError

# Four batches an epoch, of which the last is smaller with 14 of the 16 images; an optimizer step
# in three batches, so that one spans the end of every epoch.
SPANNING = dict(nbs=12, epochs=3)
RAGGED = dict(fraction=0.875, epochs=3)
CONNECTORS = {
    TERM: dict(weight=dict(share=0.3)),
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
    model = attached(toy, folder / "weights" / "last.pt", SETTINGS[name].get("terms", LAST))
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


def killed(toy: YOLOToy, name: str, on: Callbacks, **settings: Any) -> Path:
    """The ``last.pt`` of a distilled run in a process that the callbacks have killed."""

    def run() -> None:
        # Its library waits for threads that a forked process lacks.
        DetectionTrainer.read_results_csv = lambda trainer: {}
        distil(toy, on=on, name=name, **settings)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    return toy.folder / "runs" / name / "weights" / "last.pt"


def kill(*args: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_after_a_kill(toy: YOLOToy, whole: Callable[[str], Whole]) -> None:
    """Also one between an epoch's row in ``results.csv`` and its checkpoint, which then has to be
    trained again."""

    def at_the_end(trainer: Any) -> None:
        if trainer.epoch == 1:
            trainer.save_model = kill

    last = killed(toy, "killed", dict(on_train_epoch_end=at_the_end), **SETTINGS["SGD"])
    assert read_checkpoint(last)["epoch"] == 0
    results = last.parents[1] / "results.csv"
    assert len(results.read_text().splitlines()) == 3
    # The beginning of another row, whose number would be 12.
    with results.open("a") as file:
        file.write("1")
    resumed = train(toy, attached(toy, last), resume=True)
    assert read_results(resumed)["epoch"] == [1, 2, 3]
    assert differences(whole("SGD").end, comparable(resumed)) == []


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("SGD", {}),
        # Ended by its patience after two of three epochs.
        ("AdamW", dict(patience=1, epochs=3)),
    ],
)
def test_after_a_kill_in_the_final_evaluation(
    toy: YOLOToy, name: str, settings: dict[str, Any]
) -> None:
    settings = {**SETTINGS[name], **settings}
    expected = comparable(distil(toy, **settings))

    def final(trainer: Any) -> None:
        evaluate = trainer.final_eval

        def evaluate_and_die() -> None:
            trainer.validator.callbacks["on_val_batch_end"].append(kill)
            evaluate()

        trainer.final_eval = evaluate_and_die

    last = killed(toy, f"killed-{name}", dict(on_train_start=final), **settings)
    trained: list[int] = []
    resumed = train(
        toy,
        attached(toy, last),
        on=dict(on_train_batch_end=lambda trainer: trained.append(1)),
        resume=True,
    )
    assert trained == []
    assert read_checkpoint(last)["optimizer"] is None
    assert sorted(file.name for file in last.parent.iterdir()) == ["best.pt", "last.pt"]
    end = end_of(resumed)
    for part in ("last", "best", "results", "updates"):
        assert differences(expected[part], end[part]) == []


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


def test_another_teacher(toy: YOLOToy, tmp_path: Path) -> None:
    last = stopped(toy)
    copy = shutil.copy(toy.teacher, tmp_path / "same.pt")
    other = write_teacher(Path(shutil.copy(toy.teacher.with_suffix(".yaml"), tmp_path)), seed=8)
    before = last.read_bytes()
    with pytest.raises(ValueError, match=r"^DistillCallback teacher: its weights .* began with"):
        train(toy, attached(toy, last, teacher=str(other)), resume=True)
    assert last.read_bytes() == before
    # The file may have another name by now.
    assert train(toy, attached(toy, last, teacher=str(copy)), resume=True).start_epoch == 1


def test_a_teacher_in_memory_has_no_file_to_compare(toy: YOLOToy) -> None:
    model = attached(toy, stopped(toy), teacher=YOLO(toy.teacher))
    assert train(toy, model, resume=True).start_epoch == 1


def test_a_finished_run_has_nothing_to_resume(toy: YOLOToy) -> None:
    """Ultralytics would train on a sample set that it downloads."""
    last = distil(toy, epochs=1).last
    content = last.read_bytes()
    message = (
        rf"resume: {last} is of a finished run, .* start a new run from it: model=\.\.\., with"
    )
    for settings in (dict(resume=True), dict(resume=str(last))):
        with pytest.raises(InputError, match=message):
            attached(toy, last).train(**settings)
    assert last.read_bytes() == content


@pytest.mark.parametrize(
    ("resume", "message"),
    [
        (True, r"resume: expected model=\.\.\./last\.pt of a run that was stopped, found a defin"),
        ("nowhere/last.pt", "resume: no such file: nowhere/last.pt"),
        (3, "resume: expected True or a file, got 3"),
        ("empty", r"empty\.pt cannot be read as a checkpoint of Ultralytics', being damaged or"),
        ("half", r"half\.pt cannot be read as a checkpoint of Ultralytics', being damaged or"),
        ("other", r"other\.pt is no checkpoint that Ultralytics' trainer has written"),
    ],
)
def test_what_is_nothing_to_resume(
    toy: YOLOToy, tmp_path: Path, resume: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ultralytics would take the newest last.pt below the current folder."""
    whole = toy.teacher.read_bytes()
    (tmp_path / "empty.pt").touch()
    (tmp_path / "half.pt").write_bytes(whole[: len(whole) // 2])
    torch.save(dict(weights=torch.zeros(1)), tmp_path / "other.pt")
    (tmp_path / "last.pt").write_bytes(whole)
    files = {file.name for file in tmp_path.iterdir()}
    monkeypatch.chdir(tmp_path)
    resume = f"{tmp_path}/{resume}.pt" if f"{resume}.pt" in files else resume
    with pytest.raises(InputError, match=message):
        attached(toy).train(resume=resume)
    assert {file.name for file in tmp_path.iterdir()} == files
