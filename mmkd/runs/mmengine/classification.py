"""Recipes of MMPretrain's classifiers."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner

from mmkd.runs.fingerprint import ImageFiles
from mmkd.runs.mmengine.recipes import ConfigRecipe

__all__ = ["ClassificationRecipe"]

_SPLITS = {"training": "train_dataloader", "test": "test_dataloader"}


@dataclass(frozen=True)
class ClassificationRecipe(ConfigRecipe):
    """A classification config whose test evaluator is MMPretrain's Accuracy."""

    @property
    def iterations(self) -> int:
        """Training iterations, from the length of the data set."""
        loader = self.config.train_dataloader
        images = self._items("train_dataloader").count
        whole, rest = divmod(images, loader.batch_size)
        batches = whole + (rest > 0 and not loader.get("drop_last", False))
        return batches * self.config.train_cfg.max_epochs

    def content(self) -> dict[str, Any]:
        """The config, and what its data sets hold besides files."""
        items = {split: self._items(loader).digest for split, loader in _SPLITS.items()}
        return {**super().content(), "items": items}

    def files(self) -> dict[str, Path | ImageFiles]:
        """The images that are files, and the user's own modules."""
        items = {f"{split} images": self._items(loader) for split, loader in _SPLITS.items()}
        images = {key: each.images for key, each in items.items() if each.images.names}
        return {**images, **super().files()}

    def scores(self, runner: Runner) -> dict[str, float]:
        """Top-1 accuracy on the test set."""
        return {"top1": float(runner.test()["accuracy/top1"])}

    def _items(self, loader: str) -> _Items:
        settings = json.dumps(self.config[loader].dataset.to_dict(), sort_keys=True)
        return _items_of(settings, self.config.default_scope)


@dataclass(frozen=True)
class _Items:
    """What a data set holds: how many items, which files, and a digest of all else."""

    count: int
    images: ImageFiles
    digest: str


@cache
def _items_of(settings: str, scope: str) -> _Items:
    """Of a data set, built once for all recipes on it."""
    with DefaultScope.overwrite_default_scope(scope):
        dataset = DATASETS.build(json.loads(settings))
    digest, files = hashlib.sha256(), []
    for item in _listed(dataset):
        files += [str(item["img_path"])] if "img_path" in item else []
        digest.update(_bytes_of({k: v for k, v in item.items() if k != "img_path"}))
    folder = Path(os.path.commonpath([Path(file).parent for file in files])) if files else Path()
    names = [os.path.relpath(file, folder) for file in files]
    return _Items(len(dataset), ImageFiles(folder, names), digest.hexdigest())


def _listed(dataset: Any) -> Iterator[Mapping[str, Any]]:
    """Its items before the pipeline, where it tells them as MMEngine's data sets do."""
    if hasattr(dataset, "get_data_info"):
        yield from (dataset.get_data_info(index) for index in range(len(dataset)))


def _bytes_of(item: Mapping[str, Any]) -> bytes:
    parts = [
        (key, value.shape, str(value.dtype), value.tobytes())
        if isinstance(value, np.ndarray)
        else (key, value)
        for key, value in sorted(item.items())
    ]
    return repr(parts).encode()
