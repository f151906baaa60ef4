"""The size of the images that a Runner trains on."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from mmkd.engine.random_state import preserved_random_state
from mmkd.errors import InputError

__all__ = ["image_size"]

# What MMEngine's data sets hold of every image: shared with the copy, for it is large.
_ANNOTATIONS = ("data_list", "data_bytes", "data_address")


def image_size(owner: str, loader: DataLoader, preprocessor: nn.Module) -> tuple[int, int]:
    """Height and width of the first training image as the model is given it.

    It is read by a copy of the data set, so that neither a cache of its pipeline's nor a random
    state is another afterwards.

    Args:
        owner: Whose setting the error names.
        loader: Of the training.
        preprocessor: The model's own.

    Raises:
        InputError: It cannot be read, or is no image.
    """
    shared = {
        id(value): value
        for dataset in _nested(loader.dataset)
        for value in (getattr(dataset, name, None) for name in _ANNOTATIONS)
    }
    try:
        with preserved_random_state():
            sample = copy.deepcopy(loader.dataset, shared)[0]
            images = preprocessor(loader.collate_fn([sample]), False)["inputs"]
        height, width = images[0].shape[-2:]
    except Exception as error:  # Pipelines and data sets fail in any way.
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError.at(
            f"{owner} probe_size",
            f"the first training image, whose size is that of the probe, cannot be read ({said}): "
            "mend train_dataloader, or give the images' size, as probe_size=(height, width)",
        ) from error
    return int(height), int(width)


def _nested(dataset: Any) -> Iterator[Any]:
    """A data set and those that it wraps."""
    yield dataset
    for inner in (getattr(dataset, "dataset", None), *(getattr(dataset, "datasets", None) or ())):
        if inner is not None:
            yield from _nested(inner)
