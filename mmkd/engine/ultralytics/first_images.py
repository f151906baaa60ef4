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

__all__ = ["first_images"]


def first_images(trainer: Any, model: nn.Module, split: str, count: int) -> ProbeImages:
    """The first images of a split, padded to squares, neither augmented nor cached.

    Args:
        trainer: Of the training.
        model: The student.
        split: ``'train'`` or ``'val'``.
        count: Of images; fewer where there are no more.
    """
    arguments = copy.copy(trainer.args)
    arguments.cache = arguments.rect = False
    dataset: Any = build_yolo_dataset(
        arguments, trainer.data[split], count, trainer.data, mode="val"
    )
    batch = dataset.collate_fn([dataset[index] for index in range(min(count, len(dataset)))])
    batch["img"] = batch["img"].to(trainer.device).float() / 255
    inputs = batch["img"]
    return ProbeImages(inputs, targets_of(batch, dataset), partial(run_detector, model, inputs))
