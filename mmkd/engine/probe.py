"""The blank image on which models are tried before training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from mmkd.errors import InputError, SettingError

__all__ = ["ProbeSize", "parse_probe_size", "probing"]

ProbeSize = int | tuple[int, int]


def parse_probe_size(owner: str, value: Any) -> tuple[int, int] | None:
    """Reads the ``probe_size`` setting.

    Args:
        owner: Whose setting it is.
        value: Height and width in pixels, or one number for both; None for those of the training's
            own images.

    Raises:
        ValueError: Something else.
    """
    if value is None:
        return None
    sides = (value, value) if isinstance(value, int) else value
    is_pair = isinstance(sides, list | tuple) and len(sides) == 2
    if not is_pair or not all(isinstance(side, int) and side >= 1 for side in sides):
        raise InputError.at(
            f"{owner} probe_size",
            f"expected a number of pixels, 1 or more, or (height, width), got {value!r}",
        )
    return sides[0], sides[1]


@contextmanager
def probing(owner: str, what: str, blank: Tensor) -> Iterator[None]:
    """Makes whatever a model fails with on ``blank`` an error that names ``probe_size``.

    Args:
        owner: Whose setting it is.
        what: Which model is tried.
        blank: On which image.

    Raises:
        InputError: It fails.
    """
    try:
        yield
    except Exception as error:  # Models refuse a size in any way: assertions, indices, shapes.
        is_named = isinstance(error, SettingError) and error.setting is not None
        # Lack of memory is for the trainer to handle.
        if is_named or isinstance(error, torch.OutOfMemoryError):
            raise
        height, width = blank.shape[2:]
        said = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
        raise InputError.at(
            f"{owner} probe_size",
            f"{what} fails on a blank image of {height} x {width} pixels, on which it is tried "
            f"before training ({said}): if it takes images of another size, give theirs, as "
            "probe_size=224 or probe_size=(height, width)",
        ) from error
