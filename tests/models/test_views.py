"""Several views of each image become one batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from mmpretrain.registry import TRANSFORMS
from mmpretrain.structures import DataSample
from torch import Tensor

from mmkd.registry import MODELS

SETTINGS = dict(mean=[1.0, 2.0, 3.0], std=[2.0, 4.0, 8.0], to_rgb=True, num_classes=3)


def preprocessor(kind: str = "MultiViewPreprocessor", **settings: Any) -> Any:
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        return MODELS.build(dict(type=f"mmkd.{kind}", **{**SETTINGS, **settings}))


def image(number: int, view: int) -> Tensor:
    return torch.full((3, 2, 2), 10 * number + view, dtype=torch.uint8)


def batch(labels: list[int], views: int) -> dict[str, Any]:
    """As a loader collates what ``MultiView`` and ``PackInputs`` leave."""
    packed = [
        dict(
            inputs=[image(i, v) for v in range(views)],
            data_samples=DataSample(metainfo=dict(index=i)).set_gt_label(label),
        )
        for i, label in enumerate(labels)
    ]
    return pseudo_collate(packed)


@pytest.mark.parametrize("views", [1, 2, 3])
def test_views_and_labels_stay_together(views: int) -> None:
    labels = [2, 0, 1, 0]
    joined = preprocessor()(batch(labels, views), training=True)
    assert joined["inputs"].shape == (views * 4, 3, 2, 2)
    expected = [(i, v) for v in range(views) for i in range(4)]
    for (i, v), found, sample in zip(
        expected, joined["inputs"], joined["data_samples"], strict=True
    ):
        for channel in range(3):
            mean, std = SETTINGS["mean"][channel], SETTINGS["std"][channel]
            assert found[channel].unique().tolist() == [(10 * i + v - mean) / std]
        assert sample.gt_label.tolist() == [labels[i]]
        assert sample.index == i
    samples = joined["data_samples"]
    assert len({id(sample) for sample in samples}) == len(samples)


def test_mixup_mixes_across_views() -> None:
    torch.manual_seed(0)
    mixing = preprocessor(batch_augments=dict(augments=dict(type="Mixup", alpha=1.0)))
    joined = mixing(batch([0, 1, 2, 0], 2), training=True)
    scores = torch.stack([sample.gt_score for sample in joined["data_samples"]])
    assert scores.shape == (8, 3)
    torch.testing.assert_close(scores.sum(dim=1), torch.ones(8))
    assert scores.max() < 1 or (scores.max(dim=1).values < 1).any()


def test_single_images_are_what_they_are_to_the_stock_one() -> None:
    packed = [dict(inputs=image(i, 0), data_samples=DataSample().set_gt_label(i)) for i in range(3)]
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        stock = MODELS.build(dict(type="mmpretrain.ClsDataPreprocessor", **SETTINGS))
    ours, theirs = (each(pseudo_collate(packed)) for each in (preprocessor(), stock))
    assert torch.equal(ours["inputs"], theirs["inputs"])
    assert [s.gt_label.item() for s in ours["data_samples"]] == [0, 1, 2]
    # A stack of images, as inference passes it, with no samples.
    stacked = dict(inputs=torch.stack([each["inputs"] for each in packed]))
    assert torch.equal(preprocessor()(stacked)["inputs"], theirs["inputs"])


def test_mmpretrain_s_own_transforms() -> None:
    """``img_shape`` tells the size of a view, not of the image it was made of."""
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        steps = [
            TRANSFORMS.build(
                dict(type="MultiView", num_views=2, transforms=[[dict(type="Resize", scale=6)]])
            ),
            TRANSFORMS.build(dict(type="PackInputs")),
        ]
    packed = []
    for label in range(3):
        results: dict[str, Any] = dict(
            img=torch.randint(255, (4, 4, 3), dtype=torch.uint8).numpy(),
            gt_label=label,
            img_shape=(4, 4),
        )
        for step in steps:
            results = step(results)
        packed.append(results)
    joined = preprocessor()(pseudo_collate(packed), training=True)
    assert joined["inputs"].shape == (6, 3, 6, 6)
    assert [int(s.gt_label) for s in joined["data_samples"]] == [0, 1, 2] * 2
    assert [tuple(s.img_shape) for s in joined["data_samples"]] == [(6, 6)] * 6


# Turned images --------------------------------------------------------------------------------


def squares(count: int = 2, side: tuple[int, int] = (2, 2)) -> dict[str, Any]:
    numbers = torch.arange(3 * side[0] * side[1], dtype=torch.uint8).reshape(3, *side)
    packed = [
        dict(inputs=numbers + 20 * i, data_samples=DataSample().set_gt_label(i))
        for i in range(count)
    ]
    return pseudo_collate(packed)


def test_turns_follow_the_originals() -> None:
    build = preprocessor("RotationPreprocessor", mean=None, std=None, to_rgb=False)
    found = build(squares(), training=True)
    assert found["inputs"].shape == (8, 3, 2, 2)
    assert [sample.gt_label.item() for sample in found["data_samples"]] == [0, 1, *[-100] * 6]
    # The first channel of the first image is [[0, 1], [2, 3]].
    expected = [[[0, 1], [2, 3]], [[1, 3], [0, 2]], [[3, 2], [1, 0]], [[2, 0], [3, 1]]]
    assert found["inputs"][::2, 0].tolist() == expected
    assert torch.equal(found["inputs"][1::2], found["inputs"][::2] + 20)


def test_cross_entropy_leaves_turned_images_out() -> None:
    from mmpretrain.models.losses import CrossEntropyLoss

    logits = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, *[-100] * 6])
    loss = CrossEntropyLoss(loss_weight=0.4)(logits, labels, avg_factor=8)
    own = torch.nn.functional.cross_entropy(logits[:2], labels[:2])
    torch.testing.assert_close(loss, 0.1 * own)


def test_nothing_is_turned_in_testing() -> None:
    found = preprocessor("RotationPreprocessor")(squares(), training=False)
    assert found["inputs"].shape == (2, 3, 2, 2)
    assert len(found["data_samples"]) == 2


def test_what_cannot_be_turned() -> None:
    with pytest.raises(ValueError, match=r"turns square images, got \(2, 3\)"):
        preprocessor("RotationPreprocessor")(squares(side=(2, 3)), training=True)
    with pytest.raises(ValueError, match="takes one label an image, got scores"):
        preprocessor("RotationPreprocessor", to_onehot=True)(squares(), training=True)
