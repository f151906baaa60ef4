"""A share of a classification set, the same in every run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset

from mmkd.registry import DATASETS

__all__ = ["seeded_subset"]


@DATASETS.register_module(name="SeededSubset")
def seeded_subset(dataset: Mapping[str, Any], fraction: float = 0.2, seed: int = 0) -> BaseDataset:
    """A data set of which ``fraction`` of every class is left, drawn by ``seed``.

    In a config, ``dict(type='mmkd.SeededSubset', dataset=dict(type='ImageNet', ...))``. What comes
    out is a data set of the inner one's own class, in its order: Miles & Mikolajczyk's "20%
    subset" of ImageNet (Table 1).

    Args:
        dataset: The config of a data set on MMEngine's BaseDataset whose items have a
            ``gt_label``, one class each.
        fraction: Share of every class, above 0 and at most 1; each keeps one image at least.
        seed: Of the draw.

    Raises:
        ValueError: A fraction out of range; items without ``gt_label``.
        TypeError: Something other than a BaseDataset.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"SeededSubset fraction must be above 0 and at most 1, got {fraction}")
    whole = DATASETS.build(dict(dataset))
    if not isinstance(whole, BaseDataset):
        raise TypeError(f"SeededSubset dataset must be a BaseDataset, got {type(whole).__name__}")
    return whole.get_subset(_draw(_labels(whole), fraction, seed))


def _labels(dataset: BaseDataset) -> np.ndarray:
    labels = [dataset.get_data_info(index).get("gt_label") for index in range(len(dataset))]
    if any(not isinstance(label, int | np.integer) for label in labels):
        raise ValueError(
            f"SeededSubset needs a gt_label, one class, in every item of {type(dataset).__name__}"
        )
    return np.array(labels)


def _draw(labels: np.ndarray, fraction: float, seed: int) -> list[int]:
    """Indices of the share of every class, in ascending order."""
    random = np.random.default_rng(seed)
    drawn: list[int] = []
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        count = max(1, round(fraction * len(of_class)))
        drawn += random.choice(of_class, count, replace=False).tolist()
    return sorted(drawn)
