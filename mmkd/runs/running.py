"""Training one recipe after another: each run finished once, scored, and kept."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

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

from mmkd.custom_imports import import_modules, imported_modules
from mmkd.errors import InputError, first_few
from mmkd.extras import extra
from mmkd.runs.fingerprint import Fingerprint, named_modules
from mmkd.runs.interrupts import not_swallowed, raise_if_interrupted
from mmkd.runs.library_output import output_to
from mmkd.runs.recipe import Recipe
from mmkd.runs.record import TrainingRecord, as_record, read_record, unfinished_file, write_json
from mmkd.work_dirs.run_files import RESULT, STARTED
from mmkd.work_dirs.run_result import RunResult

__all__ = [
    "Job",
    "differences",
    "fingerprint_of",
    "run_all",
    "stored_result",
    "train_and_evaluate",
]


@dataclass(frozen=True)
class Job:
    """A run to be made.

    Args:
        name: In tables.
        recipe: Of the run.
        title: What the progress bar calls it.
        cost: Time of an iteration relative to the other jobs'.
        expected: The run's fingerprint, where all that it reads is there before the first job.
    """

    name: str
    recipe: Recipe
    title: str
    cost: float = 1.0
    expected: Fingerprint | None = None


def run_all(jobs: Sequence[Job], workers: int = 1) -> list[RunResult]:
    """Trains and evaluates, with a progress bar, what was not finished before.

    Args:
        jobs: What to run.
        workers: Processes. With one, the jobs are run here and in turn, and one may need what
            another before it leaves, such as its checkpoint. With more, each of them takes a job
            at a time, on one thread; then no job may need another.

    Raises:
        ValueError: ``workers`` is not positive.
        InputError: A work dir holds files that no run of mmkd's has left, or what a job reads is
            not what was expected.
    """
    if workers < 1:
        raise ValueError(f"workers must be 1 or more, got {workers}")
    for job in jobs:
        _records(job.recipe.work_dir)
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
        results.append(train_and_evaluate(job.recipe, job.name, advance, job.expected))
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
    return index, train_and_evaluate(job.recipe, job.name, expected=job.expected)


def fingerprint_of(recipe: Recipe) -> Fingerprint:
    """Of the settings, the files that are read, and a user's own modules."""
    settings = {**recipe.content(), "seed": recipe.seed}
    return Fingerprint.of(settings, {**recipe.files(), **named_modules(imported_modules())})


def _records(work_dir: Path) -> dict[str, dict[str, Any]]:
    """What the runs in a work dir have noted, by file; nothing else may lie there.

    Raises:
        InputError: It does.
    """
    found = {name: read_record(work_dir / name) for name in (RESULT, STARTED)}
    records = {name: record for name, record in found.items() if record is not None}
    if not records and _holds_files(work_dir):
        raise InputError(
            f"{work_dir} holds files of something else than a run of mmkd's, and is not "
            "overwritten: choose another folder, or move it away"
        )
    return records


def _holds_files(work_dir: Path) -> bool:
    if not work_dir.is_dir():
        return work_dir.exists()
    # All that is there of a run that was stopped at once.
    return any(file.name != unfinished_file(work_dir / STARTED).name for file in work_dir.iterdir())


def differences(work_dir: Path, made_from: Fingerprint, ignored: Sequence[str] = ()) -> list[str]:
    """What a run to be made differs in from the one that a work dir holds, for people.

    Args:
        work_dir: It may hold nothing, or a run that has trained nothing: then there are none.
        made_from: Of the run to be made.
        ignored: Settings that may differ.

    Raises:
        InputError: It holds files that no run of mmkd's has left.
    """
    records = _records(work_dir)
    if not _is_trained(work_dir, records):
        return []
    for name, record in records.items():
        if record["fingerprint"] == made_from.digest:
            continue
        if not record.get("made_from"):
            return ["an earlier version of mmkd made it, and did not note from what"]
        with as_record(work_dir / name):
            stored = Fingerprint.from_json(record["made_from"])
        found = made_from.changes_since(stored, ignored)
        if found:
            return found
    return []


def _is_trained(work_dir: Path, records: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether something would be lost: an epoch that is over, or weights."""
    started = records.get(STARTED)
    if started is None:
        return bool(records)
    if started.get("epoch_seconds"):
        return True
    return any(file.suffix in (".pth", ".pt") for file in work_dir.rglob("*.pt*"))


def stored_result(recipe: Recipe, made_from: Fingerprint | None = None) -> RunResult | None:
    """The result of the same run, where it was finished before in the recipe's work dir.

    Args:
        recipe: Of the run.
        made_from: Its fingerprint, where it is known.

    Raises:
        InputError: There is one that cannot be read.
    """
    file = recipe.work_dir / RESULT
    stored = read_record(file)
    if stored is None:
        return None
    if stored["fingerprint"] != (made_from or fingerprint_of(recipe)).digest:
        return None
    with as_record(file):
        result = _moved(RunResult(**stored["result"]), recipe.work_dir)
    if not Path(result.checkpoint).is_file():
        return None
    if result.work_dir != stored["result"]["work_dir"]:
        write_json(file, {**stored, "result": asdict(result)})
    return result


def _moved(result: RunResult, work_dir: Path) -> RunResult:
    """The result where it lies now, with what was moved along with it."""
    before, now = Path(result.work_dir), work_dir

    def here(text: str | None) -> str | None:
        if text is None or not Path(text).is_relative_to(before.parent):
            return text
        return str(now.parent / Path(text).relative_to(before.parent))

    if before == now:
        return result
    return replace(
        result,
        work_dir=str(now),
        checkpoint=str(here(result.checkpoint)),
        annotations=here(result.annotations),
        images=here(result.images),
    )


def train_and_evaluate(
    recipe: Recipe,
    name: str,
    on_iteration: Callable[[], None] = lambda: None,
    expected: Fingerprint | None = None,
) -> RunResult:
    """Trains and scores a recipe.

    A run that was finished before is not repeated, and one that was interrupted goes on from its
    last checkpoint. What libraries print goes to ``output.log`` in the work dir.

    Args:
        recipe: What to train.
        name: Of the run in tables.
        on_iteration: Called after every training iteration.
        expected: The fingerprint that it had when runs which it is compared with began.

    Raises:
        InputError: The work dir holds files that no run of mmkd's has left, or what the run is
            made from is not what was expected.
    """
    made_from = fingerprint_of(recipe)
    changes = made_from.changes_since(expected) if expected else []
    if changes:
        raise InputError(
            f"{recipe.work_dir}: since the comparison began, {first_few(changes, '; ')}; so this "
            "run could not be compared with the others. Put it back and call again, or begin with "
            "another --out"
        )
    stored = stored_result(recipe, made_from)
    if stored is not None:
        return stored
    work_dir = recipe.work_dir
    _records(work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    digest, noted = made_from.digest, made_from.as_json()
    record = TrainingRecord.open(work_dir, digest, noted)
    # Of another run, or without its weights.
    (work_dir / RESULT).unlink(missing_ok=True)

    def step() -> None:
        raise_if_interrupted()
        on_iteration()

    with output_to(work_dir / "output.log"), not_swallowed():
        trained = recipe.train(step, record)
    result = RunResult(name=name, seed=recipe.seed, work_dir=str(work_dir), **asdict(trained))
    write_json(work_dir / RESULT, dict(fingerprint=digest, made_from=noted, result=asdict(result)))
    return result
