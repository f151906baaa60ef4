"""Recipes of MMPretrain's classifiers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner

from mmkd.runs.mmengine.recipes import ConfigRecipe

__all__ = ["ClassificationRecipe"]


@dataclass(frozen=True)
class ClassificationRecipe(ConfigRecipe):
    """A classification config whose test evaluator is MMPretrain's Accuracy.

    Its images count by the path of their folder, not by their content.
    """

    @property
    def iterations(self) -> int:
        """Training iterations, from the length of the data set."""
        loader = self.config.train_dataloader
        settings = json.dumps(loader.dataset.to_dict(), sort_keys=True)
        images = _num_images(settings, self.config.default_scope)
        whole, rest = divmod(images, loader.batch_size)
        batches = whole + (rest > 0 and not loader.get("drop_last", False))
        return batches * self.config.train_cfg.max_epochs

    def files(self) -> list[Path]:
        """The teachers' checkpoints."""
        return self.teachers

    def scores(self, runner: Runner) -> dict[str, float]:
        """Top-1 accuracy on the test set."""
        return {"top1": float(runner.test()["accuracy/top1"])}


@cache
def _num_images(settings: str, scope: str) -> int:
    """The length of a data set, built once for all recipes on it."""
    with DefaultScope.overwrite_default_scope(scope):
        return len(DATASETS.build(json.loads(settings)))
