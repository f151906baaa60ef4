"""Training one recipe after another: each run finished once, scored, and kept."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from mmkd.custom_imports import import_modules, imported_modules, source_files
from mmkd.errors import InputError
from mmkd.extras import extra
from mmkd.runs.library_output import output_to
from mmkd.runs.recipe import Recipe
from mmkd.runs.record import TrainingRecord, as_record, read_record, unfinished_file, write_json
from mmkd.work_dirs.run_files import RESULT, STARTED
from mmkd.work_dirs.run_result import RunResult

__all__ = [
    "Job",
    "holds_another_run",
    "run_all",
    "stored_result",
    "train_and_evaluate",
]


@dataclass(frozen=True)
class Job:
    """A run to be made: its name in tables, its recipe, what the progress bar calls it, and the
    time of an iteration relative to the other jobs'."""

    name: str
    recipe: Recipe
    title: str
    cost: float = 1.0


def run_all(jobs: Sequence[Job], workers: int = 1) -> list[RunResult]:
    """Trains and evaluates, with a progress bar, what was not finished before.

    Args:
        jobs: What to run.
        workers: Processes. With one, the jobs are run here and in turn, and one may need what
            another before it leaves, such as its checkpoint. With more, each of them takes a job
            at a time, on one thread; then no job may need another.

    Raises:
        ValueError: ``workers`` is not positive.
        InputError: A work dir holds files that no run of mmkd's has left.
    """
    if workers < 1:
        raise ValueError(f"workers must be 1 or more, got {workers}")
    for job in jobs:
        _check_work_dir(job.recipe.work_dir)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    # With several workers the bar moves only where a run ends: the speed is that of many runs.
    period = 30.0 if workers == 1 else math.inf
    # The console is bound now: the libraries' output is redirected while they train.
    console = Console(file=sys.stdout)
    with Progress(*columns, console=console, speed_estimate_period=period) as progress:
        run = _run_in_turn if workers == 1 else partial(_run_in_processes, workers=workers)
        results = run(jobs, progress)
        progress.update(progress.task_ids[0], description="done")
    return results


def _work(job: Job) -> float:
    return job.cost * job.recipe.iterations


def _run_in_turn(jobs: Sequence[Job], progress: Progress) -> list[RunResult]:
    results, done = [], 0.0
    whole = progress.add_task("", total=sum(map(_work, jobs)))
    for job in jobs:
        progress.update(whole, description=f"{job.title}, seed {job.recipe.seed}")
        advance = partial(progress.advance, whole, job.cost)
        results.append(train_and_evaluate(job.recipe, job.name, advance))
        # A run that was finished, or partly made before, has not advanced it this far.
        done += _work(job)
        progress.update(whole, completed=done)
    return results


def _run_in_processes(jobs: Sequence[Job], progress: Progress, workers: int) -> list[RunResult]:
    found = [stored_result(job.recipe) for job in jobs]
    results = {index: result for index, result in enumerate(found) if result is not None}
    missing = [index for index in range(len(jobs)) if index not in results]
    done = sum(_work(jobs[index]) for index in results)
    whole = progress.add_task("", total=sum(map(_work, jobs)), completed=round(done))
    with extra("eval", "training with several workers"):
        from joblib import Parallel, delayed, parallel_config
    with parallel_config("loky", n_jobs=workers, inner_max_num_threads=1):
        parallel = Parallel(return_as="generator_unordered", pre_dispatch=workers)
        for index, result in parallel(
            delayed(_run_one)(jobs[i], i, imported_modules()) for i in missing
        ):
            results[index] = result
            job = jobs[index]
            progress.advance(whole, _work(job))
            progress.update(whole, description=f"{job.title}, seed {job.recipe.seed}, done")
    return [results[index] for index in range(len(jobs))]


def _run_one(job: Job, index: int, imports: Sequence[str]) -> tuple[int, RunResult]:
    import_modules(imports)
    torch.set_num_threads(1)
    return index, train_and_evaluate(job.recipe, job.name)


def _fingerprint(recipe: Recipe) -> str:
    """Of the settings, and of what is in the files that they name and in a user's own modules."""
    files = [*recipe.files(), *source_files(imported_modules())]
    hashes = [hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.is_file()]
    content = {**recipe.content(), "files": hashes}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _check_work_dir(work_dir: Path) -> set[str]:
    """Fingerprints of the runs in a work dir, which may hold nothing that no run has left.

    Raises:
        InputError: It does.
    """
    records = [read_record(work_dir / name) for name in (RESULT, STARTED)]
    found = {record["fingerprint"] for record in records if record is not None}
    if not found and _holds_files(work_dir):
        raise InputError(
            f"{work_dir} holds files of something else than a run of mmkd's, and is not "
            "overwritten: choose another folder, or move it away"
        )
    return found


def _holds_files(work_dir: Path) -> bool:
    if not work_dir.is_dir():
        return work_dir.exists()
    # All that is there of a run that was stopped at once.
    return any(file.name != unfinished_file(work_dir / STARTED).name for file in work_dir.iterdir())


def holds_another_run(recipe: Recipe) -> bool:
    """Whether the recipe's work dir holds a run with other settings, data or teachers, finished or
    not, which training would overwrite.

    Raises:
        InputError: It holds files that no run of mmkd's has left.
    """
    return bool(_check_work_dir(recipe.work_dir) - {_fingerprint(recipe)})


def stored_result(recipe: Recipe) -> RunResult | None:
    """The result of the same run, where it was finished before in the recipe's work dir.

    Raises:
        InputError: There is one that cannot be read.
    """
    file = recipe.work_dir / RESULT
    stored = read_record(file)
    if stored is None or stored["fingerprint"] != _fingerprint(recipe):
        return None
    with as_record(file):
        result = RunResult(**stored["result"])
        return result if Path(result.checkpoint).is_file() else None


def train_and_evaluate(
    recipe: Recipe, name: str, on_iteration: Callable[[], None] = lambda: None
) -> RunResult:
    """Trains and scores a recipe.

    A run that was finished before is not repeated, and one that was interrupted goes on from its
    last checkpoint. What libraries print goes to ``output.log`` in the work dir.

    Args:
        recipe: What to train.
        name: Of the run in tables.
        on_iteration: Called after every training iteration.

    Raises:
        InputError: The work dir holds files that no run of mmkd's has left.
    """
    stored = stored_result(recipe)
    if stored is not None:
        return stored
    fingerprint = _fingerprint(recipe)
    work_dir = recipe.work_dir
    _check_work_dir(work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    record = TrainingRecord.open(work_dir, fingerprint)
    with output_to(work_dir / "output.log"):
        trained = recipe.train(on_iteration, record)
    result = RunResult(name=name, seed=recipe.seed, work_dir=str(work_dir), **asdict(trained))
    write_json(work_dir / RESULT, dict(fingerprint=fingerprint, result=asdict(result)))
    return result
