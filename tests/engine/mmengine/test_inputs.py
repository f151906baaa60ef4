"""The teacher sees what its own preprocessor would have made of the images."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from helpers.toy import (
    PREPROCESSOR,
    Probe,
    distill,
    distill_hook_of,
    toy_config,
    train,
    write_teacher,
)
from mmkd.engine.input_conversion import ImageFormat, InputConversion, image_sizes

SIZES = ((16, 16), (9, 20), (13, 11), (16, 24))
CAFFE = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False)
FORMATS: dict[str, dict[str, Any]] = {
    "the student's own": {},
    "mean and std": dict(mean=[10.0, 20.0, 30.0], std=[5.0, 6.0, 7.0]),
    "channel order": dict(bgr_to_rgb=False),
    "channel order the other way": dict(bgr_to_rgb=False, rgb_to_bgr=True),
    "caffe": CAFFE,
    "padding": dict(pad_value=7.5),
    "all": dict(CAFFE, pad_value=-3.0),
    "one value for all channels": dict(mean=[100.0], std=[50.0]),
    "none": dict(mean=None, std=None, bgr_to_rgb=False, pad_value=114.0),
}


@pytest.mark.parametrize("name", FORMATS)
def test_in_training(tmp_path: Path, name: str) -> None:
    teacher = write_teacher(tmp_path, data_preprocessor=dict(PREPROCESSOR, **FORMATS[name]))
    seen: list[torch.Tensor] = []
    expected: list[torch.Tensor] = []

    def watch(runner: Runner) -> None:
        model = distill_hook_of(runner).teachers["teacher"].model
        model.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        preprocess = runner.model.data_preprocessor.forward

        def both(data: dict, training: bool = False) -> dict:
            raw = copy.deepcopy(data)
            expected.append(model.data_preprocessor(raw, training)["inputs"])
            return preprocess(data, training)

        runner.model.data_preprocessor.forward = both

    config = toy_config(tmp_path, **distill(teacher), **{"train_cfg.max_epochs": 1})
    config.train_dataloader.dataset.sizes = SIZES
    config.train_dataloader.sampler.shuffle = False
    train(config, Probe(before_train=watch))
    assert len(seen) == len(expected) == 4
    for ours, theirs in zip(seen, expected, strict=True):
        assert ours.shape == (4, 3, 16, 24)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def batch(sizes: Any = SIZES) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, *size), generator=generator).byte() for size in sizes]
    samples = [BaseDataElement(metainfo=dict(img_shape=size)) for size in sizes]
    return dict(inputs=images, data_samples=samples)


@pytest.mark.parametrize("teacher", ["mmdet.DetDataPreprocessor", "mmpretrain.ClsDataPreprocessor"])
@pytest.mark.parametrize("swaps", [False, True])
def test_between_families(teacher: str, swaps: bool) -> None:
    from mmdet.structures import DetDataSample
    from mmpretrain.structures import DataSample

    def data(kind: type) -> dict[str, Any]:
        raw = batch()
        raw["data_samples"] = [kind(metainfo=dict(img_shape=size)) for size in SIZES]
        return raw

    student = MODELS.build(
        dict(
            type="mmdet.DetDataPreprocessor",
            mean=[123.675, 116.28, 103.53],
            std=[58.395, 57.12, 57.375],
            bgr_to_rgb=True,
            pad_size_divisor=32,
        )
    )
    swap = dict(to_rgb=swaps) if "Cls" in teacher else dict(bgr_to_rgb=swaps)
    own = MODELS.build(
        dict(
            type=teacher, mean=[50.0, 60, 70], std=[10.0, 20, 30], pad_value=5, pad_size_divisor=32
        )
        | swap
    )
    prepared = student(data(DetDataSample))
    expected = own(data(DataSample if "Cls" in teacher else DetDataSample))["inputs"]
    convert = InputConversion(ImageFormat.of(student), ImageFormat.of(own))
    converted = convert(prepared["inputs"], image_sizes(prepared["data_samples"]))
    torch.testing.assert_close(converted, expected, rtol=1e-5, atol=1e-4)


def test_the_same_format_is_passed_on_untouched() -> None:
    preprocessor = MODELS.build(dict(PREPROCESSOR))
    convert = InputConversion(ImageFormat.of(preprocessor), ImageFormat.of(preprocessor))
    images = torch.rand(2, 3, 4, 4)
    assert convert.is_identity
    assert convert(images, [(2, 2), (4, 4)]) is images


def test_the_students_images_are_left_alone() -> None:
    convert = InputConversion(ImageFormat(), ImageFormat(mean=(1.0, 2.0, 3.0), pad_value=9.0))
    images = torch.rand(1, 3, 4, 4)
    before = images.clone()
    converted = convert(images, [(4, 2)])
    assert torch.equal(images, before)
    assert (converted[..., 2:] == 9).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_type_is_kept(dtype: torch.dtype) -> None:
    convert = InputConversion(ImageFormat(), ImageFormat(swapped=True, std=(2.0, 4.0, 8.0)))
    images = torch.rand(1, 3, 2, 2).to(dtype)
    expected = images.flip(1) / torch.tensor([2.0, 4.0, 8.0]).view(1, 3, 1, 1).to(dtype)
    assert convert(images).dtype == dtype
    torch.testing.assert_close(convert(images), expected)


def test_sizes_are_known_of_all_images_or_of_none() -> None:
    known = BaseDataElement(metainfo=dict(img_shape=(3, 4, 3)))
    assert image_sizes([known, known]) == [(3, 4), (3, 4)]
    assert image_sizes([known, BaseDataElement()]) is None
    assert image_sizes(None) is None
