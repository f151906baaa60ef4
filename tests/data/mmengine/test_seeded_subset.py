"""A share of a classification set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.dataset import BaseDataset
from mmpretrain.datasets import ImageNet
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

from mmkd.registry import DATASETS

LABELS = [0] * 10 + [1] * 20 + [2] * 5 + [3]


@DATASETS.register_module(name="ToyLabels")
class ToyLabels(BaseDataset):
    """Items that know their position."""

    def __init__(self, labels: list[Any] = LABELS, **settings: Any) -> None:
        self.labels = labels
        super().__init__(**settings)

    def load_data_list(self) -> list[dict[str, Any]]:
        return [dict(position=i, gt_label=label) for i, label in enumerate(self.labels)]


def subset(**settings: Any) -> BaseDataset:
    inner = dict(type="mmkd.ToyLabels", metainfo=dict(classes=tuple("abcd")))
    return DATASETS.build(dict(type="mmkd.SeededSubset", dataset=inner) | settings)


def positions(dataset: BaseDataset) -> list[int]:
    return [dataset[i]["position"] for i in range(len(dataset))]


def test_the_share_of_every_class() -> None:
    small = subset(fraction=0.2)
    labels = [small[i]["gt_label"] for i in range(len(small))]
    assert np.bincount(labels).tolist() == [2, 4, 1, 1]
    assert all(LABELS[p] == label for p, label in zip(positions(small), labels, strict=True))


def test_the_draw_is_seeded_and_in_order() -> None:
    first = positions(subset(fraction=0.5, seed=0))
    assert first == positions(subset(fraction=0.5, seed=0))
    assert first == sorted(set(first))
    assert first != positions(subset(fraction=0.5, seed=1))


def test_everything() -> None:
    assert positions(subset(fraction=1)) == list(range(len(LABELS)))


def test_it_stays_a_data_set_of_its_own_class() -> None:
    small = subset()
    assert type(small) is ToyLabels
    assert small.metainfo["classes"] == tuple("abcd")
    assert len(ToyLabels()) == len(LABELS)


@pytest.mark.parametrize("serialize", [True, False])
def test_imagenet(tmp_path: Path, serialize: bool) -> None:
    lines = [f"{label}/{i}.JPEG {label}" for label in (0, 7, 999) for i in range(10)]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    inner = dict(
        type="mmpretrain.ImageNet",
        data_root=str(tmp_path),
        ann_file="train.txt",
        data_prefix="train",
        serialize_data=serialize,
    )
    small = DATASETS.build(dict(type="mmkd.SeededSubset", dataset=inner, fraction=0.2))
    assert isinstance(small, ImageNet)
    assert small.metainfo["classes"] == IMAGENET_CATEGORIES
    assert small.get_gt_labels().tolist() == [0, 0, 7, 7, 999, 999]
    assert Path(small.get_data_info(0)["img_path"]).parent.name == "0"


@pytest.mark.parametrize("fraction", [0, -0.1, 1.5, float("nan")])
def test_fraction_out_of_range(fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction must be above 0 and at most 1, got"):
        subset(fraction=fraction)


def test_items_without_one_class() -> None:
    inner = dict(type="mmkd.ToyLabels", labels=[[0, 1], [2]])
    with pytest.raises(ValueError, match="needs a gt_label, one class, in every item of ToyLabels"):
        subset(dataset=inner)


def test_not_a_data_set() -> None:
    inner = dict(type="mmengine.ConcatDataset", datasets=[dict(type="mmkd.ToyLabels")])
    with pytest.raises(TypeError, match="must be a BaseDataset, got ConcatDataset"):
        subset(dataset=inner)
