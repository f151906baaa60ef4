"""Training one config after another: each run finished once, evaluated alike, and kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
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
    "RunResult",
    "last_checkpoint",
    "run_all",
    "spread",
    "stored_result",
    "train_and_evaluate",
]

_DETECTIONS = "detections"
_RESULT = "result.json"
# What differs between two runs of one config without changing what they compute.
_IRRELEVANT = ("experiment_name", "visualizer", "vis_backends", "log_level")


@dataclass(frozen=True)
class RunResult:
    """One trained and evaluated detector."""

    name: str
    seed: int
    scores: dict[str, float]
    parameters: int
    training_seconds: float
    checkpoint: str

    @property
    def work_dir(self) -> Path:
        """Where logs, checkpoint and detections lie."""
        return Path(self.checkpoint).parent

    @property
    def detections(self) -> Path:
        """Detections on the validation images, in COCO's result format."""
        return self.work_dir / f"{_DETECTIONS}.bbox.json"


class _IterationHook(Hook):
    """Reports every iteration, and adds up the time spent in training epochs."""

    priority = "LOWEST"

    def __init__(self, on_iteration: Callable[[], None]) -> None:
        self._on_iteration = on_iteration
        self.training_seconds = 0.0

    def before_train_epoch(self, runner: Runner) -> None:
        self._start = time.perf_counter()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self._on_iteration()

    def after_train_epoch(self, runner: Runner) -> None:
        self.training_seconds += time.perf_counter() - self._start


@dataclass(frozen=True)
class Job:
    """A run to be made: its name in tables, its config, what the progress bar calls it, and the
    time of an iteration relative to the other jobs'."""

    name: str
    config: Config
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
    work = [job.cost * _iterations(job.config) for job in jobs]
    # The console is bound now: the libraries' output is redirected while they train.
    with Progress(*columns, console=Console(file=sys.stdout)) as progress:
        whole = progress.add_task("", total=sum(work))
        for job, cost in zip(jobs, work, strict=True):
            seed = job.config.randomness.seed
            progress.update(whole, description=f"{job.title}, seed {seed}")
            if stored_result(job.config) is not None:
                progress.advance(whole, cost)
            advance = partial(progress.advance, whole, job.cost)
            results.append(train_and_evaluate(job.config, job.name, advance))
        progress.update(whole, description="done")
    return results


def last_checkpoint(config: Config) -> str:
    """Where a run of the config leaves its weights."""
    return str(Path(config.work_dir) / f"epoch_{config.train_cfg.max_epochs}.pth")


def _iterations(config: Config) -> int:
    """Training iterations of an epoch-based config, from its annotation file."""
    dataset = config.train_dataloader.dataset
    annotations = json.loads((Path(dataset.data_root) / dataset.ann_file).read_text())
    batches = -(-len(annotations["images"]) // config.train_dataloader.batch_size)
    return batches * config.train_cfg.max_epochs


def _fingerprint(config: Config) -> str:
    """Of the config, and of what is in the files that it names: annotations and teachers."""
    content = {k: v for k, v in config.to_dict().items() if k not in _IRRELEVANT}
    dataset = config.train_dataloader.dataset
    files = [Path(dataset.data_root) / dataset.ann_file, Path(config.val_evaluator.ann_file)]
    for hook in config.get("custom_hooks") or []:
        files += [Path(text) for text in _values(hook, "checkpoint")]
    content["files"] = [
        hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _values(settings: Any, key: str) -> Iterator[Any]:
    """Everything that nested dicts hold under a key."""
    if isinstance(settings, dict):
        for name, value in settings.items():
            if name == key:
                yield value
            yield from _values(value, key)


def spread(values: Sequence[float]) -> str:
    """Mean, and standard deviation where there are several values."""
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def stored_result(config: Config) -> RunResult | None:
    """The result of the same run, where it was finished before in the config's work dir."""
    file = Path(config.work_dir) / _RESULT
    if not file.is_file():
        return None
    stored = json.loads(file.read_text())
    result = RunResult(**stored["result"])
    is_same = stored["fingerprint"] == _fingerprint(config)
    return result if is_same and Path(result.checkpoint).is_file() else None


def train_and_evaluate(
    config: Config, name: str, on_iteration: Callable[[], None] = lambda: None
) -> RunResult:
    """Trains a config that validates at its end, and scores its detections by pycocotools.

    A run that was finished before is not repeated. What libraries print goes to ``output.log``
    in the work dir.

    Args:
        config: An epoch-based detection config with ``work_dir``, ``randomness.seed`` and a
            CocoMetric for validation.
        name: Of the run in tables.
        on_iteration: Called after every training iteration.
    """
    stored = stored_result(config)
    if stored is not None:
        return stored
    fingerprint = _fingerprint(config)
    work_dir = Path(config.work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    config.experiment_name = f"{work_dir.name}_{time.time_ns()}"
    config.visualizer.name = config.experiment_name
    config.val_evaluator.outfile_prefix = str(work_dir / _DETECTIONS)
    hook = _IterationHook(on_iteration)
    with _output_to(work_dir / "output.log"):
        runner = Runner.from_cfg(config)
        runner.register_hook(hook)
        runner.train()
        scores = evaluate_detections(
            config.val_evaluator.ann_file, f"{config.val_evaluator.outfile_prefix}.bbox.json"
        )
    result = RunResult(
        name=name,
        seed=config.randomness.seed,
        scores=scores.as_dict(),
        parameters=sum(p.numel() for p in runner.model.parameters()),
        training_seconds=hook.training_seconds,
        checkpoint=last_checkpoint(config),
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
