"""Training one recipe after another: each run finished once, evaluated alike, and kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from mmkd.evaluation.coco import evaluate_detections

__all__ = [
    "Job",
    "Recipe",
    "RunResult",
    "Trained",
    "run_all",
    "spread",
    "stored_result",
    "train_and_evaluate",
]

_DETECTIONS = "detections.bbox.json"
_RESULT = "result.json"


@dataclass(frozen=True)
class RunResult:
    """One trained and evaluated detector."""

    name: str
    seed: int
    scores: dict[str, float]
    parameters: int
    training_seconds: float
    checkpoint: str
    work_dir: str

    @property
    def detections(self) -> Path:
        """Detections on the validation images, in COCO's result format."""
        return Path(self.work_dir) / _DETECTIONS


@dataclass(frozen=True)
class Trained:
    """What a training leaves."""

    parameters: int
    training_seconds: float
    checkpoint: str


class Recipe(Protocol):
    """Settings of one training, in any framework."""

    @property
    def seed(self) -> int:
        """Of the run."""

    @property
    def work_dir(self) -> Path:
        """Where everything of the run goes."""

    @property
    def annotations(self) -> Path:
        """COCO annotations of the images on which it is scored."""

    @property
    def iterations(self) -> int:
        """Training iterations."""

    def content(self) -> dict[str, Any]:
        """All settings that matter for the outcome, as plain values."""

    def files(self) -> list[Path]:
        """Files whose content matters too: data, teachers."""

    def train(self, on_iteration: Callable[[], None], detections: Path) -> Trained:
        """Trains, and writes detections of the trained model in COCO's result format.

        Args:
            on_iteration: To be called after every training iteration.
            detections: File to write.
        """


@dataclass(frozen=True)
class Job:
    """A run to be made: its name in tables, its recipe, what the progress bar calls it, and the
    time of an iteration relative to the other jobs'."""

    name: str
    recipe: Recipe
    title: str
    cost: float = 1.0


def run_all(jobs: Sequence[Job]) -> list[RunResult]:
    """Trains and evaluates, in turn and with a progress bar, what was not finished before."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    results = []
    work = [job.cost * job.recipe.iterations for job in jobs]
    # The console is bound now: the libraries' output is redirected while they train.
    with Progress(*columns, console=Console(file=sys.stdout)) as progress:
        whole = progress.add_task("", total=sum(work))
        for job, cost in zip(jobs, work, strict=True):
            progress.update(whole, description=f"{job.title}, seed {job.recipe.seed}")
            if stored_result(job.recipe) is not None:
                progress.advance(whole, cost)
            advance = partial(progress.advance, whole, job.cost)
            results.append(train_and_evaluate(job.recipe, job.name, advance))
        progress.update(whole, description="done")
    return results


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
    """Trains a recipe and scores its detections by pycocotools.

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
    detections = work_dir / _DETECTIONS
    with _output_to(work_dir / "output.log"):
        trained = recipe.train(on_iteration, detections)
        scores = evaluate_detections(recipe.annotations, detections)
    result = RunResult(
        name=name,
        seed=recipe.seed,
        scores=scores.as_dict(),
        work_dir=str(work_dir),
        **asdict(trained),
    )
    (work_dir / _RESULT).write_text(
        json.dumps(dict(fingerprint=fingerprint, result=asdict(result)), indent=2) + "\n"
    )
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
