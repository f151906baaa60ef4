"""Recipes of the MM family: a config for its Runner."""

from __future__ import annotations

import copy
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmkd.evaluation.coco import evaluate_detections
from mmkd.evaluation.runs import DETECTIONS, Trained

__all__ = ["ConfigRecipe", "MMRecipe"]

# What differs between two runs of one config without changing what they compute.
_IRRELEVANT = ("experiment_name", "visualizer", "vis_backends", "log_level")


@dataclass(frozen=True)
class ConfigRecipe(ABC):
    """An epoch-based config with ``work_dir`` and ``randomness.seed``.

    What the tasks share; each adds ``iterations``, ``files`` and ``scores``. See
    :class:`mmkd.evaluation.runs.Recipe`.
    """

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
    def checkpoint(self) -> str:
        """Where the run leaves its weights."""
        return str(self.work_dir / f"epoch_{self.config.train_cfg.max_epochs}.pth")

    @property
    def teachers(self) -> list[Path]:
        """Checkpoints that hooks name."""
        return [
            Path(text)
            for hook in self.config.get("custom_hooks") or []
            for text in _values(hook, "checkpoint")
        ]

    def content(self) -> dict[str, Any]:
        """The config, less what only names the run."""
        return {k: v for k, v in self.config.to_dict().items() if k not in _IRRELEVANT}

    def config_to_run(self) -> Config:
        """A copy of the config that leaves what :meth:`scores` needs."""
        return copy.deepcopy(self.config)

    @abstractmethod
    def scores(self, runner: Runner) -> dict[str, float]:
        """Of the trained model, in percent."""

    def train(self, on_iteration: Callable[[], None]) -> Trained:
        """Runs the config, and scores the model of its last epoch."""
        config = self.config_to_run()
        config.experiment_name = f"{self.work_dir.name}_{time.time_ns()}"
        config.visualizer.name = config.experiment_name
        hook = _IterationHook(on_iteration)
        runner = Runner.from_cfg(config)
        runner.register_hook(hook)
        runner.train()
        return Trained(
            parameters=sum(p.numel() for p in runner.model.parameters()),
            training_seconds=hook.training_seconds,
            checkpoint=self.checkpoint,
            scores=self.scores(runner),
        )


@dataclass(frozen=True)
class MMRecipe(ConfigRecipe):
    """A detection config with a CocoMetric for validation, which it runs at its end."""

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
    def _training_annotations(self) -> Path:
        dataset = self.config.train_dataloader.dataset
        return Path(dataset.data_root) / dataset.ann_file

    def files(self) -> list[Path]:
        """Annotations, and the teachers' checkpoints."""
        return [self._training_annotations, self.annotations, *self.teachers]

    def config_to_run(self) -> Config:
        """Its own validation writes the detections."""
        config = super().config_to_run()
        prefix = str(self.work_dir / DETECTIONS).removesuffix(".bbox.json")
        config.val_evaluator.outfile_prefix = prefix
        return config

    def scores(self, runner: Runner) -> dict[str, float]:
        """Average precision of the last validation's detections, by pycocotools."""
        return evaluate_detections(self.annotations, self.work_dir / DETECTIONS).as_dict()


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
