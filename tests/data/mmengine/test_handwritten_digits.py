"""The embedded classification set."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mmkd.data.mmengine.handwritten_digits import HandwrittenDigits
from mmkd.registry import DATASETS


@pytest.fixture(scope="module")
def splits() -> dict[str, HandwrittenDigits]:
    return {
        split: DATASETS.build(dict(type="mmkd.HandwrittenDigits", split=split))
        for split in ("train", "test")
    }


def images(dataset: HandwrittenDigits) -> np.ndarray:
    return np.stack([dataset[i]["img"] for i in range(len(dataset))])


def test_the_two_splits_are_the_whole_set(splits: dict[str, HandwrittenDigits]) -> None:
    assert [len(each) for each in splits.values()] == [1297, 500]
    ours = np.concatenate([images(each)[..., 0] for each in splits.values()]).reshape(1797, -1)
    theirs = np.rint(load_digits().data * 255 / 16)
    assert np.array_equal(np.unique(ours, axis=0), np.unique(theirs, axis=0))
    assert ours.sum() == theirs.sum()


def test_items(splits: dict[str, HandwrittenDigits]) -> None:
    item = splits["test"][3]
    assert item["img"].shape == (8, 8, 3)
    assert item["img"].dtype == np.uint8
    assert isinstance(item["gt_label"], int)
    found = images(splits["train"])
    assert (found == found[..., :1]).all()
    assert (found.min(), found.max()) == (0, 255)


def test_labels_belong_to_their_images(splits: dict[str, HandwrittenDigits]) -> None:
    digits = load_digits()
    known = {
        np.rint(image * 255 / 16).astype(np.uint8).tobytes(): label
        for image, label in zip(digits.data, digits.target, strict=True)
    }
    for item in (splits["test"][i] for i in range(500)):
        assert known[item["img"][..., 0].tobytes()] == item["gt_label"]


def test_the_split_keeps_the_shares_and_is_fixed(splits: dict[str, HandwrittenDigits]) -> None:
    whole = np.bincount(load_digits().target)
    labels = [splits["test"].get_data_info(i)["gt_label"] for i in range(500)]
    assert np.abs(np.bincount(labels) - whole * 500 / 1797).max() <= 1
    again = HandwrittenDigits("test")
    assert np.array_equal(images(again), images(splits["test"]))
    assert splits["test"].metainfo["classes"] == tuple("0123456789")


def test_unknown_split() -> None:
    with pytest.raises(ValueError, match=r"split must be one of \('train', 'test'\), got 'val'"):
        HandwrittenDigits("val")
