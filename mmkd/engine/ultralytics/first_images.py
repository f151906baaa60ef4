"""The images that a training of Ultralytics' holds, as its validation would see them."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

from torch import nn
from ultralytics.data import build_yolo_dataset

from mmkd.dynamics import ProbeImages
from mmkd.engine.ultralytics.targets import targets_of
from mmkd.engine.ultralytics.teacher import run_detector

__all__ = ["first_batches", "first_images"]


def first_images(trainer: Any, model: nn.Module, split: str, count: int) -> ProbeImages:
    """The first images of a split, padded to squares, neither augmented nor cached.

    Args:
        trainer: Of the training.
        model: The student.
        split: ``'train'`` or ``'val'``.
        count: Of images; fewer where there are no more.
    """
    [found] = first_batches(trainer, model, split, 1, count)
    return found


def first_batches(
    trainer: Any, model: nn.Module, split: str, count: int, size: int
) -> list[ProbeImages]:
    """So many batches of so many images; fewer where there are no more.

    Args:
        trainer, model, split: See :func:`first_images`.
        count: Of batches.
        size: Of each.
    """
    arguments = copy.copy(trainer.args)
    arguments.cache = arguments.rect = False
    dataset: Any = build_yolo_dataset(
        arguments, trainer.data[split], size, trainer.data, mode="val"
    )
    found = []
    for start in range(0, min(count * size, len(dataset)), size):
        indices = range(start, min(start + size, len(dataset)))
        batch = dataset.collate_fn([dataset[index] for index in indices])
        batch["img"] = inputs = batch["img"].to(trainer.device).float() / 255
        run = partial(run_detector, model, inputs)
        found.append(ProbeImages(inputs, targets_of(batch, dataset), run))
    return found
