"""A classification set that needs no download: scikit-learn's handwritten digits."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from mmengine.dataset import BaseDataset

from mmkd.extras import extra
from mmkd.registry import DATASETS

__all__ = ["HandwrittenDigits"]

_SPLITS = ("train", "test")
_NUM_TEST = 500
_DARKEST = 16  # the set's grey values go from 0 to 16


@DATASETS.register_module()
class HandwrittenDigits(BaseDataset):
    """The 1,797 digits of ``sklearn.datasets.load_digits``, 1,297 to train and 500 to test.

    The split keeps the share of every class and never changes.

    Args:
        split: ``'train'`` or ``'test'``.
        settings: Further ones of MMEngine's BaseDataset, such as ``pipeline``.

    Items, before the pipeline: ``img``, uint8 ``[8, 8, 3]`` with three equal channels, and
    ``gt_label``, 0 to 9.

    Raises:
        ValueError: An unknown split.
    """

    METAINFO: ClassVar[dict[str, Any]] = dict(classes=tuple("0123456789"))

    def __init__(self, split: str, **settings: Any) -> None:
        if split not in _SPLITS:
            raise ValueError(f"HandwrittenDigits split must be one of {_SPLITS}, got {split!r}")
        self.split = split
        super().__init__(**settings)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Images and labels of the split."""
        with extra("demo", "mmkd.HandwrittenDigits"):
            from sklearn.datasets import load_digits
            from sklearn.model_selection import train_test_split
        digits = load_digits()
        indices = np.arange(len(digits.target))
        train, test = train_test_split(
            indices, test_size=_NUM_TEST, random_state=0, stratify=digits.target
        )
        grey = np.rint(digits.images * (255 / _DARKEST)).astype(np.uint8)
        return [
            dict(img=np.repeat(grey[i, :, :, None], 3, axis=2), gt_label=int(digits.target[i]))
            for i in (train if self.split == "train" else test)
        ]
