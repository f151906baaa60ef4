"""Features of the objects that images show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

__all__ = ["ObjectFeatures", "chunks"]

_CHUNK = 8


@dataclass(frozen=True)
class ObjectFeatures:
    """What a network holds just before it names a class.

    Args:
        features: ``[M, C]``: a classifier's of each image, before its last linear layer; a
            detector's of each box of the truth, of all levels of the neck one after another.
        labels: ``[M]``, int64.
        classes: Their names.
    """

    features: Tensor
    labels: Tensor
    classes: tuple[str, ...]


def chunks(indices: Sequence[int]) -> Iterator[Sequence[int]]:
    """As many as are looked at in one batch."""
    for start in range(0, len(indices), _CHUNK):
        yield indices[start : start + _CHUNK]
