"""Training one recipe after another: each run finished once, scored, and kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Protocol

import torch
from joblib import Parallel, delayed, parallel_config
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = [
    "DETECTIONS",
    "Job",
    "Recipe",
    "RunResult",
    "Trained",
    "run_all",
    "spread",
    "stored_result",
    "train_and_evaluate",
]

# Where a detector's recipe leaves its detections in the work dir.
DETECTIONS = "detections.bbox.json"
_RESULT = "result.json"


@dataclass(frozen=True)
class RunResult:
    """One trained and evaluated network."""

    name: str
    seed: int
    scores: dict[str, float]
    parameters: int
    training_seconds: float
    checkpoint: str
    work_dir: str

    @property
    def detections(self) -> Path:
        """A detector's detections on the validation images, in COCO's result format."""
        return Path(self.work_dir) / DETECTIONS


@dataclass(frozen=True)
class Trained:
    """What a training leaves.

    Args:
        parameters: Of the network as it is deployed.
        training_seconds: Without evaluation.
        checkpoint: File of the weights.
        scores: Of these weights, in percent by metric.
    """

    parameters: int
    training_seconds: float
    checkpoint: str
    scores: dict[str, float]


class Recipe(Protocol):
    """Settings of one training, in any framework."""

    @property
    def seed(self) -> int:
        """Of the run."""

    @property
    def work_dir(self) -> Path:
        """Where everything of the run goes."""

    @property
    def iterations(self) -> int:
        """Training iterations."""

    def content(self) -> dict[str, Any]:
        """All settings that matter for the outcome, as plain values."""

    def files(self) -> list[Path]:
        """Files whose content matters too: data, teachers."""

    def train(self, on_iteration: Callable[[], None]) -> Trained:
        """Trains, and scores what was trained.

        Args:
            on_iteration: To be called after every training iteration.
        """


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
    """
    if workers < 1:
        raise ValueError(f"workers must be 1 or more, got {workers}")
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
    results = []
    whole = progress.add_task("", total=sum(map(_work, jobs)))
    for job in jobs:
        progress.update(whole, description=f"{job.title}, seed {job.recipe.seed}")
        if stored_result(job.recipe) is not None:
            progress.advance(whole, _work(job))
        advance = partial(progress.advance, whole, job.cost)
        results.append(train_and_evaluate(job.recipe, job.name, advance))
    return results


def _run_in_processes(jobs: Sequence[Job], progress: Progress, workers: int) -> list[RunResult]:
    found = [stored_result(job.recipe) for job in jobs]
    results = {index: result for index, result in enumerate(found) if result is not None}
    missing = [index for index in range(len(jobs)) if index not in results]
    done = sum(_work(jobs[index]) for index in results)
    whole = progress.add_task("", total=sum(map(_work, jobs)), completed=round(done))
    with parallel_config("loky", n_jobs=workers, inner_max_num_threads=1):
        parallel = Parallel(return_as="generator_unordered", pre_dispatch=workers)
        for index, result in parallel(delayed(_run_one)(jobs[i], i) for i in missing):
            results[index] = result
            job = jobs[index]
            progress.advance(whole, _work(job))
            progress.update(whole, description=f"{job.title}, seed {job.recipe.seed}, done")
    return [results[index] for index in range(len(jobs))]


def _run_one(job: Job, index: int) -> tuple[int, RunResult]:
    torch.set_num_threads(1)
    return index, train_and_evaluate(job.recipe, job.name)


def spread(values: Sequence[float]) -> str:
    """Mean, and standard deviation where there are several values."""
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def _fingerprint(recipe: Recipe) -> str:
    """Of the settings, and of what is in the files that they name."""
    hashes = [hashlib.sha256(f.read_bytes()).hexdigest() for f in recipe.files() if f.is_file()]
    content = {**recipe.content(), "files": hashes}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def stored_result(recipe: Recipe) -> RunResult | None:
    """The result of the same run, where it was finished before in the recipe's work dir."""
    file = recipe.work_dir / _RESULT
    if not file.is_file():
        return None
    stored = json.loads(file.read_text())
    if stored["fingerprint"] != _fingerprint(recipe):
        return None
    result = RunResult(**stored["result"])
    return result if Path(result.checkpoint).is_file() else None


def train_and_evaluate(
    recipe: Recipe, name: str, on_iteration: Callable[[], None] = lambda: None
) -> RunResult:
    """Trains and scores a recipe.

    A run that was finished before is not repeated. What libraries print goes to ``output.log``
    in the work dir.

    Args:
        recipe: What to train.
        name: Of the run in tables.
        on_iteration: Called after every training iteration.
    """
    stored = stored_result(recipe)
    if stored is not None:
        return stored
    fingerprint = _fingerprint(recipe)
    work_dir = recipe.work_dir
    work_dir.mkdir(parents=True, exist_ok=True)
    with _output_to(work_dir / "output.log"):
        trained = recipe.train(on_iteration)
    result = RunResult(name=name, seed=recipe.seed, work_dir=str(work_dir), **asdict(trained))
    text = json.dumps(dict(fingerprint=fingerprint, result=asdict(result)), indent=2) + "\n"
    # In one step: whoever is stopped while writing leaves no half of a result.
    unfinished = work_dir / f"{_RESULT}.part"
    unfinished.write_text(text)
    unfinished.replace(work_dir / _RESULT)
    return result


@contextlib.contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Sends what libraries print and warn to a file."""
    with (
        log.open("a") as stream,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(stream),
        contextlib.redirect_stderr(stream),
    ):
        warnings.simplefilter("ignore")
        yield
