"""The images that a training of Ultralytics' holds, as its validation would see them."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

from torch import nn
from ultralytics.data.build import build_yolo_dataset, get_split_fraction

from mmkd.dynamics import ProbeImages
from mmkd.engine.ultralytics.targets import targets_of
from mmkd.engine.ultralytics.teacher import run_detector
from mmkd.targets import Targets

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
    # That which validation is on; and no more of either than the training reads.
    split = "train" if split == "train" else trainer.args.split
    dataset: Any = build_yolo_dataset(
        arguments,
        trainer.data[split],
        size,
        trainer.data,
        mode="val",
        fraction=get_split_fraction(arguments.fraction, split),
    )
    found = []
    for start in range(0, min(count * size, len(dataset)), size):
        indices = range(start, min(start + size, len(dataset)))
        batch = dataset.collate_fn([dataset[index] for index in indices])
        batch["img"] = inputs = batch["img"].to(trainer.device).float() / 255
        run = partial(run_detector, model, inputs)
        # Worked out now: the data set is let go of.
        targets = Targets(
            (inputs.shape[2], inputs.shape[3]), boxes=targets_of(batch, dataset).boxes
        )
        found.append(ProbeImages(inputs, targets, run))
    return found
