"""The blank image is as large as the training's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS
from torch import Tensor

from helpers.toy import (
    LabelledImages,
    Probe,
    checkpoint_of,
    differences,
    distill,
    distill_hook_of,
    toy_config,
    train,
    write_teacher,
)
from mmkd.losses import Loss, Takes
from mmkd.registry import MODELS
from mmkd.targets import Targets


@DATASETS.register_module()
class Counting(LabelledImages):
    """Knows how many images were read of it, and of it and its copies."""

    read = 0
    all_read: ClassVar[list[int]] = []

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.read += 1
        self.all_read.append(index)
        return super().__getitem__(index)


@MODELS.register_module()
class Labelled(Loss):
    """As if it read labels."""

    takes = Takes(form="maps", targets=("labels",))

    def forward(self, student: Tensor, teacher: Tensor, *, targets: Targets) -> Tensor:
        return (student - teacher).square().mean()


def probed(config: Config) -> tuple[int, ...]:
    """Of the teacher's first level, half the blank image's size."""
    sizes: list[tuple[int, ...]] = []

    def note(runner: Any) -> None:
        (level, *_) = distill_hook_of(runner).teachers["teacher"].probed["backbone"]
        sizes.append(tuple(level.shape[2:]))

    train(config, Probe(before_train=note))
    return sizes[0]


def config_of(folder: Path, teacher: dict, terms: Any = None, **settings: Any) -> Config:
    hooks = distill(teacher, terms)
    del hooks["custom_hooks"][0]["probe_size"]
    return toy_config(folder, **{**hooks, "train_cfg.max_epochs": 1, **settings})


def test_it_is_as_large_as_the_first_training_image(tmp_path: Path) -> None:
    teacher = write_teacher(tmp_path)
    for size in ((16, 32), (48, 16)):
        config = config_of(tmp_path, teacher, dict(deep=dict(level=0)))
        config.train_dataloader.dataset.sizes = (size,)
        assert probed(config) == (size[0] // 2, size[1] // 2)


def test_reading_it_changes_no_draw_of_the_training(tmp_path: Path) -> None:
    teacher = write_teacher(tmp_path)
    flips = {"train_dataloader.dataset.flip": True, "train_cfg.max_epochs": 1}
    plain = train(toy_config(tmp_path, **flips))
    distilled = train(config_of(tmp_path, teacher, dict(a=dict(weight=0.0)), **flips))
    ends = [checkpoint_of(each, "epoch_1.pth")["state_dict"] for each in (plain, distilled)]
    assert not differences(*ends)


def test_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    config = config_of(tmp_path, write_teacher(tmp_path))
    config.train_dataloader.dataset.sizes = ()
    with pytest.raises(ValueError, match=r"^DistillHook probe_size: the first training image"):
        train(config)


def test_a_cache_of_the_data_set_stays_as_it_is(tmp_path: Path) -> None:
    config = config_of(tmp_path, write_teacher(tmp_path))
    config.train_dataloader.dataset.type = "Counting"
    seen: list[int] = []
    train(config, Probe(before_train=lambda r: seen.append(r.train_dataloader.dataset.read)))
    assert seen == [0]


def test_one_image_tells_its_size_and_what_it_shows(tmp_path: Path) -> None:
    terms = dict(deep=dict(loss=dict(type="mmkd.Labelled")))
    config = config_of(tmp_path, write_teacher(tmp_path), terms)
    config.train_dataloader.dataset.type = "Counting"
    Counting.all_read.clear()
    seen: list[list[int]] = []
    train(config, Probe(before_train=lambda _: seen.append(list(Counting.all_read))))
    assert seen == [[0]]
