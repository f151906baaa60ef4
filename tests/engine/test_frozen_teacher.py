"""The frozen teacher: run no further than needed, and nothing of it changes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers.small_detector import IMAGES, Detector, weights_of
from helpers.small_detector import Backbone as StockBackbone
from mmkd.engine.frozen_teacher import FrozenTeacher, modules_that_run
from mmkd.engine.input_conversion import ImageFormat, InputConversion


def frozen(model: nn.Module, paths: list[str], forward: Any = None) -> FrozenTeacher:
    """Of a model that takes the student's images as they are."""
    taps = [("Owner terms.one.teacher", path) for path in paths]
    same = InputConversion(ImageFormat(), ImageFormat())
    return FrozenTeacher(
        "Owner teacher", model, taps, same, torch.zeros(1, 3, 8, 8), forward=forward
    )


def test_features_are_those_of_the_model_in_eval_mode() -> None:
    model = Detector().train()
    expected = copy.deepcopy(model).eval().backbone(IMAGES)
    features = frozen(model, ["backbone", "backbone.stem"]).features(IMAGES)
    assert list(sorted(features)) == ["backbone", "backbone.stem"]
    assert torch.equal(features["backbone"][1], expected[1])
    assert torch.equal(features["backbone.stem"], expected[0])
    assert not any(module.training for module in model.modules())


def test_nothing_changes_over_many_forwards() -> None:
    model = Detector().train()
    before = weights_of(model)
    teacher = frozen(model, ["backbone"])
    first = teacher.features(IMAGES)["backbone"][1]
    for _ in range(20):
        last = teacher.features(IMAGES + torch.randn(()))["backbone"][1]
    assert not torch.equal(first, last)
    assert torch.equal(teacher.features(IMAGES)["backbone"][1], first)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_no_gradients() -> None:
    model = Detector()
    features = frozen(model, ["backbone"]).features(IMAGES.clone().requires_grad_())
    assert not any(each.requires_grad for each in features["backbone"])
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert torch.is_grad_enabled()


def test_nothing_runs_beyond_the_deepest_tap() -> None:
    model = Detector()
    teacher = frozen(model, ["backbone.stem"])
    with modules_that_run(model) as ran:
        teacher.features(IMAGES)
    assert ran == {"backbone", "backbone.stem"}
    assert model.head_calls == 0
    frozen(model, ["head"])
    assert model.head_calls == 1


def test_how_the_model_is_run_can_be_given() -> None:
    seen = []

    def forward(model: nn.Module, inputs: Tensor, context: Any) -> Any:
        seen.append((inputs, context))
        return model(2 * inputs, context)

    model = Detector()
    features = frozen(model, ["backbone.stem"], forward).features(IMAGES, context="samples")
    (blank, _), (images, context) = seen
    assert blank.shape == (1, 3, 8, 8) and not blank.any()
    assert images is IMAGES and context == "samples"
    assert torch.equal(features["backbone.stem"], model.backbone.stem(2 * IMAGES))


def test_train_and_eval_that_return_none() -> None:
    class Backbone(StockBackbone):
        def train(self, mode: bool = True) -> None:
            super().train(mode)

    model = Backbone()
    frozen(model, ["stem"]).features(IMAGES)
    assert not model.norm.training


def test_taps_that_fail() -> None:
    with pytest.raises(ValueError, match=r"no module 'bakbone'\. Close matches: backbone"):
        frozen(Detector(), ["bakbone"])
    model = Detector()
    model.spare = nn.Identity()
    with pytest.raises(RuntimeError, match="'spare' did not run in this forward pass"):
        frozen(model, ["spare"])


def test_modules_that_run_leaves_no_hooks() -> None:
    model = Detector()
    with pytest.raises(KeyError), modules_that_run(model) as ran:
        model.backbone(IMAGES)
        raise KeyError
    assert ran == {f"backbone{rest}" for rest in ("", ".stem", ".layer1", ".norm", ".drop")} | {
        "backbone.layer1.0",
        "backbone.layer1.1",
    }
    assert not any(module._forward_pre_hooks for module in model.modules())
