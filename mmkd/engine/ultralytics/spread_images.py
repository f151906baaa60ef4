"""The images that a training of Ultralytics' holds, as its validation would see them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from ultralytics.data.build import build_yolo_dataset, get_split_fraction

from mmkd.dynamics import ProbeImages
from mmkd.engine.evenly import evenly
from mmkd.engine.ultralytics.targets import targets_of
from mmkd.engine.ultralytics.teacher import run_detector
from mmkd.targets import Targets

__all__ = ["plain_dataset", "probe_of", "spread_batches", "spread_images"]


def spread_images(trainer: Any, model: nn.Module, split: str, count: int) -> ProbeImages:
    """Images from all over a split, padded to squares, neither augmented nor cached.

    Args:
        trainer: Of the training.
        model: The student.
        split: ``'train'`` or ``'val'``.
        count: Of images; fewer where there are no more.
    """
    [found] = spread_batches(trainer, model, split, 1, count)
    return found


def spread_batches(
    trainer: Any, model: nn.Module, split: str, count: int, size: int
) -> list[ProbeImages]:
    """So many batches of so many images; fewer where there are no more.

    Args:
        trainer, model, split: See :func:`spread_images`.
        count: Of batches.
        size: Of each.
    """
    dataset = plain_dataset(trainer.args, trainer.data, split)
    chosen = evenly(count * size, len(dataset))
    return [
        probe_of(dataset, chosen[start : start + size], model, trainer.device)
        for start in range(0, len(chosen), size)
    ]


def plain_dataset(settings: Any, data: Mapping[str, Any], split: str) -> Any:
    """The images of a split, padded to squares, neither augmented nor cached.

    Args:
        settings: Ultralytics' arguments of a training.
        data: What its data file tells.
        split: ``'train'``, or ``'val'`` for that which validation is on.
    """
    arguments = copy.copy(settings)
    arguments.cache = arguments.rect = False
    # No more of either than the training reads.
    split = "train" if split == "train" else settings.split
    return build_yolo_dataset(
        arguments,
        data[split],
        1,
        dict(data),
        mode="val",
        fraction=get_split_fraction(arguments.fraction, split),
    )


def probe_of(
    dataset: Any, indices: Sequence[int], model: nn.Module, device: torch.device
) -> ProbeImages:
    """Some images of a :func:`plain_dataset`.

    Args:
        dataset: The data set.
        indices: Which.
        model: The student.
        device: Of the model.
    """
    batch = dataset.collate_fn([dataset[index] for index in indices])
    batch["img"] = inputs = batch["img"].to(device).float() / 255
    # Worked out now: the data set is let go of.
    boxes = targets_of(batch, dataset).boxes
    targets = Targets((inputs.shape[2], inputs.shape[3]), boxes=boxes)
    return ProbeImages(inputs, targets, partial(run_detector, model))
