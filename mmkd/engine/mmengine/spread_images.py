"""The images that a Runner's loaders hold, looked at before or beside a training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmengine.runner import set_random_seed
from torch import nn
from torch.utils.data import DataLoader

from mmkd.engine.evenly import evenly
from mmkd.engine.random_state import preserved_random_state
from mmkd.errors import InputError

__all__ = ["image_size", "spread_batch"]

# What MMEngine's data sets hold of every image: shared with the copy, for it is large.
_ANNOTATIONS = ("data_list", "data_bytes", "data_address")


def image_size(owner: str, first: Callable[[], Mapping[str, Any]]) -> tuple[int, int]:
    """Height and width of the first training image as the model is given it.

    Args:
        owner: Whose setting the error names.
        first: Reads the batch of it.

    Raises:
        InputError: It cannot be read, or is no image.
    """
    try:
        height, width = first()["inputs"][0].shape[-2:]
    except Exception as error:  # Pipelines and data sets fail in any way.
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError.at(
            f"{owner} probe_size",
            f"the first training image, whose size is that of the probe, cannot be read ({said}): "
            "mend train_dataloader, or give the images' size, as probe_size=(height, width)",
        ) from error
    return int(height), int(width)


def spread_batch(loader: DataLoader, preprocessor: nn.Module, count: int) -> dict[str, Any]:
    """Images from all over a data set as the model is given them in a test.

    They are read by a copy of the data set, so that neither a cache of its pipeline's nor a random
    state is another afterwards; what a pipeline draws is the same each time.

    Args:
        loader: Whose data set, and whose way of joining images.
        preprocessor: The model's own.
        count: Of images; fewer where there are no more.
    """
    shared = {
        id(value): value
        for dataset in _nested(loader.dataset)
        for value in (getattr(dataset, name, None) for name in _ANNOTATIONS)
    }
    with preserved_random_state():
        set_random_seed(0)
        dataset: Any = copy.deepcopy(loader.dataset, shared)
        samples = [dataset[index] for index in evenly(count, len(dataset))]
        return preprocessor(loader.collate_fn(samples), False)


def _nested(dataset: Any) -> Iterator[Any]:
    """A data set and those that it wraps."""
    yield dataset
    for inner in (getattr(dataset, "dataset", None), *(getattr(dataset, "datasets", None) or ())):
        if inner is not None:
            yield from _nested(inner)
