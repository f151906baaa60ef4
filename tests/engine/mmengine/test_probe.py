"""The blank image is as large as the training's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS

from helpers.toy import (
    Probe,
    ToyImages,
    checkpoint_of,
    differences,
    distill,
    distill_hook_of,
    toy_config,
    train,
    write_teacher,
)


@DATASETS.register_module()
class Counting(ToyImages):
    """Knows how many images were read of it."""

    read = 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.read += 1
        return super().__getitem__(index)


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
