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
from toy_recipe import ToyRecipe

from mmkd.evaluation.runs import Job, RunResult, run_all, spread, stored_result, weights_digest

SETTINGS = (3.0, 1.0, 2.0)
both_ways = pytest.mark.parametrize("workers", [1, 2])


@pytest.fixture(autouse=True)
def on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes import toy_recipe too."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)


def jobs(folder: Path, settings: tuple[float, ...] = SETTINGS) -> list[Job]:
    return [Job(f"s{each:g}", ToyRecipe(folder, each), "toy", cost=2.0) for each in settings]


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


def test_half_a_result_does_not_count(tmp_path: Path) -> None:
    [job] = jobs(tmp_path, (3.0,))
    job.recipe.work_dir.mkdir()
    (job.recipe.work_dir / "result.json.part").write_text('{"finger')
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
    assert stored.keys() == {"fingerprint", "result"}
    later = ("iterations", "annotations", "images", "initial_weights", "environment")
    stored["result"] = {k: v for k, v in stored["result"].items() if k not in later}
    assert set(stored["result"]) == {
        *("name", "seed", "scores", "parameters", "training_seconds", "checkpoint", "work_dir")
    }
    file.write_text(json.dumps(stored))
    earlier = stored_result(ToyRecipe(tmp_path, 3.0))
    assert earlier == replace(result, iterations=None, environment={})
    assert result.detections == Path(result.work_dir) / "detections.bbox.json"


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


def test_spread() -> None:
    assert spread([12.34]) == "12.3"
    assert spread([1.0, 3.0]) == "2.0 ± 1.4"


# Last, since joblib replaces its processes afterwards.
@both_ways
def test_what_was_finished_before_a_failure_is_kept(tmp_path: Path, workers: int) -> None:
    with pytest.raises(RuntimeError, match="it failed"):
        run_all(jobs(tmp_path, (3.0, -1.0)), workers)
    assert stored_result(ToyRecipe(tmp_path, 3.0)) is not None
    assert stored_result(ToyRecipe(tmp_path, -1.0)) is None
