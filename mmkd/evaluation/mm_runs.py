"""Recipes of the MM family: a detection config."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmkd.evaluation.runs import Trained

__all__ = ["MMRecipe"]

# What differs between two runs of one config without changing what they compute.
_IRRELEVANT = ("experiment_name", "visualizer", "vis_backends", "log_level")


@dataclass(frozen=True)
class MMRecipe:
    """An epoch-based detection config with ``work_dir``, ``randomness.seed`` and a CocoMetric for
    validation, which it runs at its end. See :class:`mmkd.evaluation.runs.Recipe`."""

    config: Config

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.config.randomness.seed

    @property
    def work_dir(self) -> Path:
        """Where everything of the run goes."""
        return Path(self.config.work_dir)

    @property
    def annotations(self) -> Path:
        """COCO annotations of the validation images."""
        return Path(self.config.val_evaluator.ann_file)

    @property
    def iterations(self) -> int:
        """Training iterations, from the annotation file."""
        annotations = json.loads(self._training_annotations.read_text())
        batches = -(-len(annotations["images"]) // self.config.train_dataloader.batch_size)
        return batches * self.config.train_cfg.max_epochs

    @property
    def checkpoint(self) -> str:
        """Where the run leaves its weights."""
        return str(self.work_dir / f"epoch_{self.config.train_cfg.max_epochs}.pth")

    @property
    def _training_annotations(self) -> Path:
        dataset = self.config.train_dataloader.dataset
        return Path(dataset.data_root) / dataset.ann_file

    def content(self) -> dict[str, Any]:
        """The config, less what only names the run."""
        return {k: v for k, v in self.config.to_dict().items() if k not in _IRRELEVANT}

    def files(self) -> list[Path]:
        """Annotations, and the teachers' checkpoints."""
        teachers = [
            Path(text)
            for hook in self.config.get("custom_hooks") or []
            for text in _values(hook, "checkpoint")
        ]
        return [self._training_annotations, self.annotations, *teachers]

    def train(self, on_iteration: Callable[[], None], detections: Path) -> Trained:
        """Runs the config; its own validation writes the detections."""
        config = self.config
        config.experiment_name = f"{self.work_dir.name}_{time.time_ns()}"
        config.visualizer.name = config.experiment_name
        config.val_evaluator.outfile_prefix = str(detections).removesuffix(".bbox.json")
        hook = _IterationHook(on_iteration)
        runner = Runner.from_cfg(config)
        runner.register_hook(hook)
        runner.train()
        return Trained(
            parameters=sum(p.numel() for p in runner.model.parameters()),
            training_seconds=hook.training_seconds,
            checkpoint=self.checkpoint,
        )


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


def _values(settings: Any, key: str) -> Iterator[Any]:
    """Everything that nested dicts hold under a key."""
    if isinstance(settings, dict):
        for name, value in settings.items():
            if name == key:
                yield value
            yield from _values(value, key)
