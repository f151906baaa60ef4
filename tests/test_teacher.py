from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmkd.checkpoint import CheckpointWeights
from mmkd.teacher import LoadReport, Teacher, load_weights, modules_that_run


class _Backbone(nn.Module):
    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.layer1 = nn.Sequential(*[nn.Conv2d(4, 4, 1) for _ in range(depth)])
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        stem = self.stem(x)
        return stem, self.drop(self.norm(self.layer1(stem)))


class _Detector(nn.Module):
    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        self.backbone = _Backbone(depth)
        self.neck = nn.Conv2d(4, 5, 1)
        self.head = nn.Conv2d(5, 2, 1)
        self.head_calls = 0

    def forward(self, x: Tensor, samples: Any = None) -> Tensor:
        features = self.backbone(x)
        self.head_calls += 1
        return self.head(self.neck(features[-1]))


def _source(weights: dict[str, Tensor]) -> CheckpointWeights:
    return CheckpointWeights(file=Path("teacher.pth"), sha256="0123", weights=weights)


def _weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


# Running


def test_features_are_those_of_the_model_in_eval_mode() -> None:
    model = _Detector().train()
    expected = copy.deepcopy(model).eval().backbone(IMAGES)
    features = Teacher(model, ["backbone", "backbone.stem"]).features(IMAGES)
    assert list(sorted(features)) == ["backbone", "backbone.stem"]
    assert torch.equal(features["backbone"][1], expected[1])
    assert torch.equal(features["backbone.stem"], expected[0])
    assert not any(module.training for module in model.modules())


def test_nothing_changes_over_many_forwards() -> None:
    model = _Detector().train()
    before = _weights_of(model)
    teacher = Teacher(model, ["backbone"])
    first = teacher.features(IMAGES)["backbone"][1]
    for _ in range(20):
        last = teacher.features(IMAGES + torch.randn(()))["backbone"][1]
    assert not torch.equal(first, last)
    assert torch.equal(teacher.features(IMAGES)["backbone"][1], first)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_no_gradients() -> None:
    model = _Detector()
    features = Teacher(model, ["backbone"]).features(IMAGES.clone().requires_grad_())
    assert not any(each.requires_grad for each in features["backbone"])
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert torch.is_grad_enabled()


def test_nothing_runs_beyond_the_deepest_tap() -> None:
    model = _Detector()
    teacher = Teacher(model, ["backbone.stem"])
    with modules_that_run(model) as ran:
        teacher.features(IMAGES)
    assert ran == {"backbone", "backbone.stem"}
    assert model.head_calls == 0
    Teacher(model, ["head"]).features(IMAGES)
    assert model.head_calls == 1


def test_how_the_model_is_run_can_be_given() -> None:
    seen = []

    def forward(model: nn.Module, inputs: Tensor, context: Any) -> Any:
        seen.append((inputs, context))
        return model(2 * inputs, context)

    model = _Detector()
    features = Teacher(model, ["backbone.stem"], forward).features(IMAGES, context="samples")
    assert seen == [(IMAGES, "samples")]
    assert torch.equal(features["backbone.stem"], model.backbone.stem(2 * IMAGES))


def test_train_and_eval_that_return_none() -> None:
    class Backbone(_Backbone):
        def train(self, mode: bool = True) -> None:
            super().train(mode)

    model = Backbone()
    Teacher(model, ["stem"]).features(IMAGES)
    assert not model.norm.training


def test_taps_that_fail() -> None:
    with pytest.raises(ValueError, match=r"no module 'bakbone'\. Close matches: backbone"):
        Teacher(_Detector(), ["bakbone"])
    model = _Detector()
    model.spare = nn.Identity()
    with pytest.raises(RuntimeError, match="'spare' did not run in this forward pass"):
        Teacher(model, ["spare"]).features(IMAGES)


def test_modules_that_run_leaves_no_hooks() -> None:
    model = _Detector()
    with pytest.raises(KeyError), modules_that_run(model) as ran:
        model.backbone(IMAGES)
        raise KeyError
    assert ran == {f"backbone{rest}" for rest in ("", ".stem", ".layer1", ".norm", ".drop")} | {
        "backbone.layer1.0",
        "backbone.layer1.1",
    }
    assert not any(module._forward_pre_hooks for module in model.modules())


# Loading


def _loaded(weights: dict[str, Tensor], depth: int = 2) -> tuple[nn.Module, LoadReport, set[str]]:
    """Loads into a new model whose backbone runs."""
    model = _Detector(depth)
    report = load_weights(model, _source(weights))
    with modules_that_run(model) as ran:
        Teacher(model, ["backbone"]).features(IMAGES)
    return model, report, ran


def test_a_checkpoint_that_fits() -> None:
    weights = _weights_of(_Detector())
    model, report, ran = _loaded(weights)
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert (report.loaded, report.missing, report.mismatched, report.unexpected) == (
        len(weights),
        (),
        (),
        (),
    )
    assert str(report) == (
        f"teacher.pth (sha256 0123): {len(weights)} tensors loaded, 0 missing, "
        "0 of another shape, 0 unexpected"
    )
    report.require(ran)


def test_half_precision_weights_are_taken() -> None:
    weights = {
        key: value.half() if value.is_floating_point() else value
        for key, value in _weights_of(_Detector()).items()
    }
    model, report, ran = _loaded(weights)
    report.require(ran)
    assert model.head.weight.dtype == torch.float32
    assert torch.equal(model.head.weight, weights["head.weight"].float())


@pytest.mark.parametrize(
    "key",
    [
        "backbone.stem.weight",
        "backbone.stem.bias",
        "backbone.layer1.1.weight",
        "backbone.norm.running_var",
    ],
)
def test_a_missing_weight_of_what_runs_is_refused(key: str) -> None:
    weights = _weights_of(_Detector())
    del weights[key]
    _, report, ran = _loaded(weights)
    assert report.missing == (key,)
    with pytest.raises(
        ValueError, match=f"teacher.pth does not fit .* 1 weights .*: {key} is miss"
    ):
        report.require(ran)


def test_missing_weights_of_what_does_not_run_are_tolerated() -> None:
    weights = {k: v for k, v in _weights_of(_Detector()).items() if k.startswith("backbone")}
    model, report, ran = _loaded(weights)
    assert report.missing == ("neck.weight", "neck.bias", "head.weight", "head.bias")
    assert torch.equal(model.backbone.stem.weight, weights["backbone.stem.weight"])
    report.require(ran)


def test_a_missing_batch_counter_is_no_matter() -> None:
    weights = _weights_of(_Detector())
    del weights["backbone.norm.num_batches_tracked"]
    _, report, ran = _loaded(weights)
    assert report.missing == ()
    report.require(ran)


def test_another_shape_in_what_runs_is_refused() -> None:
    weights = _weights_of(_Detector())
    weights["backbone.stem.weight"] = torch.zeros(8, 3, 3, 3)
    _, report, ran = _loaded(weights)
    problem = r"backbone.stem.weight is \(8, 3, 3, 3\) in the file, \(4, 3, 3, 3\) in the model"
    with pytest.raises(ValueError, match=problem):
        report.require(ran)


def test_another_shape_in_what_does_not_run_is_tolerated() -> None:
    weights = _weights_of(_Detector())
    weights["head.weight"] = torch.zeros(9, 5, 1, 1)
    _, report, ran = _loaded(weights)
    assert len(report.mismatched) == 1
    report.require(ran)


def test_a_deeper_network_s_checkpoint_is_refused() -> None:
    _, report, ran = _loaded(_weights_of(_Detector(depth=3)), depth=2)
    assert report.unexpected == ("backbone.layer1.2.weight", "backbone.layer1.2.bias")
    with pytest.raises(ValueError, match=r"backbone.layer1.2.weight has no place in the model"):
        report.require(ran)


def test_a_shallower_network_s_checkpoint_is_refused() -> None:
    _, report, ran = _loaded(_weights_of(_Detector(depth=2)), depth=3)
    with pytest.raises(ValueError, match=r"backbone.layer1.2.weight is missing"):
        report.require(ran)


def test_unexpected_weights_of_what_does_not_run_are_tolerated() -> None:
    weights = {**_weights_of(_Detector()), "head.extra": torch.zeros(1), "bbox.x": torch.zeros(1)}
    _, report, ran = _loaded(weights)
    assert report.unexpected == ("head.extra", "bbox.x")
    report.require(ran)


def test_weights_used_by_the_parent_count() -> None:
    """Attention calls its output projection through a function, never as a module."""
    model = nn.Sequential()
    model.add_module("attention", nn.MultiheadAttention(4, 2, batch_first=True))
    weights = _weights_of(model)
    del weights["attention.out_proj.weight"]
    report = load_weights(model, _source(weights))
    with modules_that_run(model) as ran:
        model.attention(*[torch.zeros(1, 3, 4)] * 3)
    assert ran == {"attention"}
    with pytest.raises(ValueError, match=r"attention\.out_proj\.weight is missing"):
        report.require(ran)


def test_a_parameter_of_the_model_itself_counts() -> None:
    model = nn.Sequential(nn.Linear(1, 1))
    model.register_parameter("scale", nn.Parameter(torch.ones(1)))
    report = load_weights(model, _source({"0.weight": torch.ones(1, 1), "0.bias": torch.ones(1)}))
    with pytest.raises(ValueError, match="1 weights differ: scale is missing"):
        report.require(ran={"0"})


def test_many_problems_are_counted() -> None:
    _, report, ran = _loaded({"head.bias": torch.zeros(2)})
    # Two weights each of stem and two convolutions; the norm's are four.
    with pytest.raises(
        ValueError, match=r"10 weights differ: .*; and 5 more\. Give the checkpoint"
    ):
        report.require(ran)
