"""Runs are made once, kept when they are finished, and shared among processes."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.progress import Progress
from torch import nn

from helpers.own_loss import own_modules_in
from helpers.toy_recipe import ToyRecipe
from mmkd.custom_imports import import_modules
from mmkd.errors import InputError
from mmkd.runs.record import TrainingRecord, weights_digest
from mmkd.runs.running import (
    Job,
    differences,
    fingerprint_of,
    run_all,
    stored_result,
    train_and_evaluate,
)
from mmkd.work_dirs.run_result import RunResult, is_finished

SETTINGS = (3.0, 1.0, 2.0)
both_ways = pytest.mark.parametrize("workers", [1, 2])


def jobs(folder: Path, settings: tuple[float, ...] = SETTINGS) -> list[Job]:
    return [Job(f"s{each:g}", ToyRecipe(folder, each), "toy", cost=2.0) for each in settings]


def holds_another_run(recipe: ToyRecipe) -> bool:
    return bool(differences(recipe.work_dir, fingerprint_of(recipe)))


def calls(folder: Path) -> dict[str, list[str]]:
    """The processes, and their threads, that trained each run."""
    files = sorted(folder.glob("*/calls"))
    return {file.parent.name: file.read_text().splitlines() for file in files}


@both_ways
def test_results_in_the_order_of_the_jobs(tmp_path: Path, workers: int) -> None:
    results = run_all(jobs(tmp_path), workers)
    assert [result.name for result in results] == ["s3", "s1", "s2"]
    assert [result.scores for result in results] == [{"top1": each} for each in SETTINGS]
    assert results[0] == RunResult(
        name="s3",
        seed=0,
        scores={"top1": 3.0},
        parameters=10,
        training_seconds=1.5,
        checkpoint=str(tmp_path / "run_3_seed0/weights.pth"),
        work_dir=str(tmp_path / "run_3_seed0"),
        iterations=4,
        environment=results[0].environment,
    )
    assert results[0].environment["torch"] == torch.__version__
    assert (tmp_path / "run_3_seed0/output.log").read_text() == "training\n"


@both_ways
def test_a_finished_run_is_not_repeated(tmp_path: Path, workers: int) -> None:
    first = run_all(jobs(tmp_path, SETTINGS[:2]))
    assert run_all(jobs(tmp_path), workers)[:2] == first
    assert [len(each) for each in calls(tmp_path).values()] == [1, 1, 1]


@both_ways
def test_another_teacher_is_another_run(tmp_path: Path, workers: int) -> None:
    run_all(jobs(tmp_path))
    (tmp_path / "teacher.pth").write_text("other weights")
    run_all(jobs(tmp_path), workers)
    assert [len(each) for each in calls(tmp_path).values()] == [2, 2, 2]


def test_half_a_record_does_not_count(tmp_path: Path) -> None:
    [job] = jobs(tmp_path, (3.0,))
    job.recipe.work_dir.mkdir()
    (job.recipe.work_dir / "started.json.part").write_text('{"finger')
    assert stored_result(job.recipe) is None
    [result] = run_all([job])
    assert stored_result(job.recipe) == result
    assert not list(tmp_path.glob("*/*.part"))


def test_a_result_without_its_checkpoint_does_not_count(tmp_path: Path) -> None:
    [result] = run_all(jobs(tmp_path, (3.0,)))
    Path(result.checkpoint).unlink()
    assert stored_result(ToyRecipe(tmp_path, 3.0)) is None


def test_results_of_earlier_versions_are_read(tmp_path: Path) -> None:
    [result] = run_all(jobs(tmp_path, (3.0,)))
    file = Path(result.work_dir) / "result.json"
    stored = json.loads(file.read_text())
    assert stored.keys() == {"fingerprint", "made_from", "result"}
    later = ("iterations", "annotations", "images", "initial_weights", "environment")
    stored["result"] = {k: v for k, v in stored["result"].items() if k not in later}
    assert set(stored["result"]) == {
        *("name", "seed", "scores", "parameters", "training_seconds", "checkpoint", "work_dir")
    }
    file.write_text(json.dumps(stored))
    earlier = stored_result(ToyRecipe(tmp_path, 3.0))
    assert earlier == replace(result, iterations=None, environment={})
    assert result.detections == Path(result.work_dir) / "detections.bbox.json"


@both_ways
def test_own_modules_are_imported_and_belong_to_the_run(tmp_path: Path, workers: int) -> None:
    """Of ``--import``: in each process, and another file is another run."""
    module = tmp_path / f"own_module_{workers}.py"
    module.write_text(f"import os\nopen(f'{tmp_path}/imported_{{os.getpid()}}', 'w').close()")
    runs = tmp_path / "runs"
    runs.mkdir()
    run_all(jobs(runs, SETTINGS[:1]))
    with own_modules_in(tmp_path):
        import_modules([module.name])
        first = run_all(jobs(runs), workers)
        assert [len(each) for each in calls(runs).values()] == [1, 1, 2]
        trained_in = {line.split()[0] for lines in calls(runs).values() for line in lines}
        imported_in = {file.name.removeprefix("imported_") for file in tmp_path.glob("imp*")}
        assert trained_in <= imported_in
        assert run_all(jobs(runs), workers) == first
        module.write_text("changed = True")
        assert holds_another_run(ToyRecipe(runs, 3.0))
    assert holds_another_run(ToyRecipe(runs, 3.0))


NO_RECORDS = ['{"finger', "[]", '"text"', "3", "null", "{}", '{"result": {}}', b"\xff\xfe"]


@pytest.mark.parametrize("name", ["result.json", "started.json"])
@pytest.mark.parametrize("content", NO_RECORDS)
def test_what_is_no_record_is_kept(tmp_path: Path, name: str, content: str | bytes) -> None:
    recipe = ToyRecipe(tmp_path, 3.0)
    recipe.work_dir.mkdir()
    file = recipe.work_dir / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = file.read_bytes()
    for refuse in (
        lambda: holds_another_run(recipe),
        lambda: train_and_evaluate(recipe, "toy"),
        lambda: run_all([Job("first", ToyRecipe(tmp_path, 1.0), "toy"), Job("s", recipe, "toy")]),
    ):
        with pytest.raises(InputError, match=rf"{name}: expected what a run of mmkd's notes there"):
            refuse()
    assert not is_finished(recipe.work_dir)
    assert calls(tmp_path) == {}
    assert (list(recipe.work_dir.iterdir()), file.read_bytes()) == ([file], before)


@pytest.mark.parametrize("change", [dict(later=1), dict(name=None)])
def test_a_record_of_another_version_is_kept(tmp_path: Path, change: dict[str, int | None]) -> None:
    """With a field that this version does not know, or without one that it needs."""
    [result] = run_all(jobs(tmp_path, (3.0,)))
    file = Path(result.work_dir) / "result.json"
    stored = json.loads(file.read_text())
    stored["result"] = {k: v for k, v in (stored["result"] | change).items() if v is not None}
    file.write_text(json.dumps(stored))
    with pytest.raises(InputError, match=r"result\.json: expected what a run"):
        run_all(jobs(tmp_path, (3.0,)))
    assert json.loads(file.read_text()) == stored


@both_ways
def test_files_of_something_else_are_kept(tmp_path: Path, workers: int) -> None:
    foreign = ToyRecipe(tmp_path, 3.0)
    weights = foreign.work_dir / "weights/last.pt"
    weights.parent.mkdir(parents=True)
    weights.write_text("of another training")
    with pytest.raises(InputError, match=r"run_3_seed0 holds files of something else than a run"):
        run_all(jobs(tmp_path), workers)
    with pytest.raises(InputError, match=r"run_3_seed0 holds files of something else than a run"):
        train_and_evaluate(foreign, "toy")
    # The other jobs have not been begun.
    assert calls(tmp_path) == {}
    assert list(foreign.work_dir.rglob("*")) == [weights.parent, weights]
    assert weights.read_text() == "of another training"


def test_a_work_dir_that_is_a_file_is_kept(tmp_path: Path) -> None:
    recipe = ToyRecipe(tmp_path, 3.0)
    recipe.work_dir.write_text("mine")
    with pytest.raises(InputError, match="holds files of something else"):
        holds_another_run(recipe)
    assert recipe.work_dir.read_text() == "mine"


def test_whether_another_run_is_there(tmp_path: Path) -> None:
    recipe = ToyRecipe(tmp_path, 3.0)
    assert not holds_another_run(recipe)
    recipe.work_dir.mkdir()
    assert not holds_another_run(recipe)
    train_and_evaluate(recipe, "toy")
    assert is_finished(recipe.work_dir)
    assert not holds_another_run(recipe)
    (tmp_path / "teacher.pth").write_text("other weights")
    assert holds_another_run(recipe)


def test_a_folder_in_which_nothing_was_trained_may_be_used_for_another_run(tmp_path: Path) -> None:
    failing = ToyRecipe(tmp_path, -1.0)
    with pytest.raises(RuntimeError, match="it failed"):
        train_and_evaluate(failing, "toy")
    assert (failing.work_dir / "started.json").is_file()
    (tmp_path / "teacher.pth").write_text("other weights")
    assert not holds_another_run(failing)
    # An epoch that is over would be lost, and so would weights.
    record = TrainingRecord.open(failing.work_dir, fingerprint_of(failing).digest)
    record.start_epoch(0)
    record.end_epoch()
    (tmp_path / "teacher.pth").write_text("once more")
    assert holds_another_run(failing)
    (failing.work_dir / "started.json").unlink()
    with pytest.raises(RuntimeError, match="it failed"):
        train_and_evaluate(ToyRecipe(tmp_path / "two", -1.0), "toy")
    started = ToyRecipe(tmp_path / "two", -1.0)
    (started.folder / "teacher.pth").write_text("others")
    assert not holds_another_run(started)
    (started.work_dir / "weights").mkdir()
    (started.work_dir / "weights/last.pt").touch()
    assert holds_another_run(started)


def test_a_folder_of_an_earlier_version_says_so(tmp_path: Path) -> None:
    [result] = run_all(jobs(tmp_path, (3.0,)))
    for name in ("result.json", "started.json"):
        file = Path(result.work_dir) / name
        stored = json.loads(file.read_text())
        del stored["made_from"]
        file.write_text(json.dumps(stored | dict(fingerprint="of another kind")))
    recipe = ToyRecipe(tmp_path, 3.0)
    assert differences(recipe.work_dir, fingerprint_of(recipe)) == [
        "an earlier version of mmkd made it, and did not note from what"
    ]


@pytest.mark.parametrize("epochs", [1, 2])
def test_the_times_of_epochs_that_are_trained_again_do_not_add_up(
    tmp_path: Path, epochs: int
) -> None:
    """As where a kill came between an epoch's end and its checkpoint."""
    record = TrainingRecord.open(tmp_path, "run")
    for epoch in range(3):
        record.start_epoch(epoch)
        record.end_epoch()
    record.epoch_seconds[:] = [1000.0, 2000.0, 4000.0]
    record.start_epoch(epochs)
    record.end_epoch()
    assert record.epoch_seconds[:-1] == [1000.0, 2000.0][:epochs]
    assert len(TrainingRecord.open(tmp_path, "run").epoch_seconds) == epochs + 1
    assert 0 <= record.epoch_seconds[-1] < 60


def test_the_digest_of_weights_is_of_names_shapes_types_and_values() -> None:
    def digest(change: str = "") -> str:
        torch.manual_seed(0)
        network = nn.ModuleDict(dict(first=nn.Conv2d(2, 3, 1), second=nn.BatchNorm2d(3)))
        if change == "buffer":
            network["second"].num_batches_tracked += 1
        elif change == "type":
            network.to(torch.bfloat16)
        elif change == "shape":
            network["first"].weight.data = network["first"].weight.data.reshape(2, 3, 1, 1)
        elif change == "name":
            network["third"] = network.pop("second")
        elif change == "value":
            network["first"].bias.data[2] += 1e-6
        return weights_digest(network)

    changes = ("", "buffer", "type", "shape", "name", "value")
    assert digest() == digest()
    assert len({digest(change) for change in changes}) == len(changes)


def test_several_workers_are_other_processes_of_one_thread(tmp_path: Path) -> None:
    run_all(jobs(tmp_path), workers=2)
    lines = [line.split() for of_run in calls(tmp_path).values() for line in of_run]
    assert {threads for _, threads in lines} == {"1"}
    assert str(os.getpid()) not in {process for process, _ in lines}


@both_ways
def test_the_bar_ends_at_the_whole_work(
    tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_all(jobs(tmp_path, SETTINGS[:1]))
    bars: list[Progress] = []
    monkeypatch.setattr(Progress, "__exit__", lambda bar, *error: bars.append(bar) or bar.stop())
    run_all(jobs(tmp_path), workers)
    [task] = bars[0].tasks
    # Three runs of 4 iterations of cost 2, one of them finished before.
    assert (task.completed, task.total) == (24, 24)
    assert task.description == "done"


def test_workers_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="workers must be 1 or more, got 0"):
        run_all(jobs(tmp_path), workers=0)


# Last, since joblib replaces its processes afterwards.
@both_ways
def test_what_was_finished_before_a_failure_is_kept(tmp_path: Path, workers: int) -> None:
    with pytest.raises(RuntimeError, match="it failed"):
        run_all(jobs(tmp_path, (3.0, -1.0)), workers)
    assert stored_result(ToyRecipe(tmp_path, 3.0)) is not None
    assert stored_result(ToyRecipe(tmp_path, -1.0)) is None
