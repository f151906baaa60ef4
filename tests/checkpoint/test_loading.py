"""Loading into a model, and what of it has to fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from helpers.small_detector import IMAGES, Detector, weights_of
from mmkd.checkpoint import CheckpointWeights, LoadReport, load_weights
from mmkd.engine.frozen_teacher import modules_that_run


def _source(weights: dict[str, Tensor]) -> CheckpointWeights:
    return CheckpointWeights(file=Path("teacher.pth"), sha256="0123", weights=weights)


def _loaded(weights: dict[str, Tensor], depth: int = 2) -> tuple[nn.Module, LoadReport, set[str]]:
    """Loads into a new model whose backbone runs."""
    model = Detector(depth)
    report = load_weights(model, _source(weights))
    with modules_that_run(model) as ran:
        model.eval().backbone(IMAGES)
    return model, report, ran


def test_a_checkpoint_that_fits() -> None:
    weights = weights_of(Detector())
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
        for key, value in weights_of(Detector()).items()
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
    weights = weights_of(Detector())
    del weights[key]
    _, report, ran = _loaded(weights)
    assert report.missing == (key,)
    with pytest.raises(
        ValueError, match=f"teacher.pth does not fit .* 1 weights .*: {key} is miss"
    ):
        report.require(ran)


def test_missingweights_of_what_does_not_run_are_tolerated() -> None:
    weights = {k: v for k, v in weights_of(Detector()).items() if k.startswith("backbone")}
    model, report, ran = _loaded(weights)
    assert report.missing == ("neck.weight", "neck.bias", "head.weight", "head.bias")
    assert torch.equal(model.backbone.stem.weight, weights["backbone.stem.weight"])
    report.require(ran)


def test_a_missing_batch_counter_is_no_matter() -> None:
    weights = weights_of(Detector())
    del weights["backbone.norm.num_batches_tracked"]
    _, report, ran = _loaded(weights)
    assert report.missing == ()
    report.require(ran)


def test_another_shape_in_what_runs_is_refused() -> None:
    weights = weights_of(Detector())
    weights["backbone.stem.weight"] = torch.zeros(8, 3, 3, 3)
    _, report, ran = _loaded(weights)
    problem = r"backbone.stem.weight is \(8, 3, 3, 3\) in the file, \(4, 3, 3, 3\) in the model"
    with pytest.raises(ValueError, match=problem):
        report.require(ran)


def test_another_shape_in_what_does_not_run_is_tolerated() -> None:
    weights = weights_of(Detector())
    weights["head.weight"] = torch.zeros(9, 5, 1, 1)
    _, report, ran = _loaded(weights)
    assert len(report.mismatched) == 1
    report.require(ran)


def test_a_deeper_network_s_checkpoint_is_refused() -> None:
    _, report, ran = _loaded(weights_of(Detector(depth=3)), depth=2)
    assert report.unexpected == ("backbone.layer1.2.weight", "backbone.layer1.2.bias")
    with pytest.raises(ValueError, match=r"backbone.layer1.2.weight has no place in the model"):
        report.require(ran)


def test_a_shallower_network_s_checkpoint_is_refused() -> None:
    _, report, ran = _loaded(weights_of(Detector(depth=2)), depth=3)
    with pytest.raises(ValueError, match=r"backbone.layer1.2.weight is missing"):
        report.require(ran)


def test_unexpectedweights_of_what_does_not_run_are_tolerated() -> None:
    weights = {**weights_of(Detector()), "head.extra": torch.zeros(1), "bbox.x": torch.zeros(1)}
    _, report, ran = _loaded(weights)
    assert report.unexpected == ("head.extra", "bbox.x")
    report.require(ran)


def test_weights_used_by_the_parent_count() -> None:
    """Attention calls its output projection through a function, never as a module."""
    model = nn.Sequential()
    model.add_module("attention", nn.MultiheadAttention(4, 2, batch_first=True))
    weights = weights_of(model)
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
