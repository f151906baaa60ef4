"""The ``inherit`` setting, without a trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmkd import DistillHook
from mmkd.engine.inherit import inheritances, parse_inherit
from mmkd.features import find_module

TEACHER = dict(config="teacher.py", checkpoint="teacher.pth")


class Given:
    """A teacher of modules alone."""

    probed: Mapping[str, Any] = {}

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def features(self, inputs: Tensor, context: Any) -> Mapping[str, Any]:
        raise AssertionError("no feature is needed")

    def module(self, path: str) -> nn.Module:
        return find_module(self.model, path)


def network(**layers: nn.Module) -> nn.Module:
    return nn.ModuleDict(layers)


def test_nothing_is_inherited_by_default() -> None:
    assert parse_inherit("Owner", None, 1) == {}
    assert parse_inherit("Owner", None, 3) == {}
    assert parse_inherit("Owner", {}, 1) == {}


def test_paths_are_kept() -> None:
    assert parse_inherit("Owner", {"head.fc": "fc", "a": "b"}, 1) == {"head.fc": "fc", "a": "b"}


@pytest.mark.parametrize("inherit", ["head.fc", ["head.fc"], True, {"head.fc": 3}, {1: "head.fc"}])
def test_something_other_than_paths(inherit: Any) -> None:
    with pytest.raises(TypeError, match=r"Owner inherit: expected a dict .* such as \{'head.fc'"):
        parse_inherit("Owner", inherit, 1)
    with pytest.raises(TypeError, match="DistillHook inherit: expected a dict"):
        DistillHook(teacher=TEACHER, inherit=inherit)


def test_several_teachers() -> None:
    terms = dict(one=dict(source="a"), two=dict(source="b"))
    with pytest.raises(
        ValueError, match="DistillHook inherit: weights come from one teacher, and 2"
    ):
        DistillHook(teacher=dict(a=TEACHER, b=TEACHER), terms=terms, inherit={"fc": "fc"})


def test_weights_are_taken_over() -> None:
    student = network(fc=nn.Linear(3, 2), norm=nn.BatchNorm2d(4))
    teacher = network(classifier=nn.Linear(3, 2), bn=nn.BatchNorm2d(4))
    nn.init.uniform_(teacher["bn"].running_mean)
    found = inheritances("Owner", student, Given(teacher), {"fc": "classifier", "norm": "bn"})
    assert {path: str(each) for path, each in found.items()} == dict.fromkeys(
        ("fc", "norm"), "takes over the teacher's weights"
    )
    for each in found.values():
        each.take_over()
    for ours, theirs in ((student["fc"], teacher["classifier"]), (student["norm"], teacher["bn"])):
        state = ours.state_dict()
        assert all(torch.equal(state[key], value) for key, value in theirs.state_dict().items())


def test_layers_of_another_shape_keep_their_own() -> None:
    """As a whole: a bias that fits is worth nothing without its weight."""

    def neck(width: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(width, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3))

    student, teacher = network(neck=neck(2)), network(neck=neck(6))
    before = {key: value.clone() for key, value in student.state_dict().items()}
    [found] = inheritances("Owner", student, Given(teacher), {"neck": "neck"}).values()
    assert str(found) == "takes over the teacher's weights, but for 0, whose shapes differ"
    found.take_over()
    for key, value in student.state_dict().items():
        source = before if key.startswith("neck.0.") else teacher.state_dict()
        assert torch.equal(value, source[key])


@pytest.mark.parametrize(
    ("inherit", "parts"),
    [
        ({"fcc": "fc"}, ("Owner inherit.fcc", "no module 'fcc'", "Close matches: fc")),
        ({"fc": "fcc"}, ("Owner inherit.fc", "no module 'fcc'", "Close matches: fc")),
        ({"fc": "wide"}, ("Owner inherit.fc", "(2, 3)", "(2, 8)", "teacher_channels")),
        ({"fc": "many"}, ("Owner inherit.fc", "(2, 3)", "(9, 3)", "num_classes")),
        ({"fc": "unbiased"}, ("Owner inherit.fc", "bias", "both need the same weights")),
        ({"fc": "conv"}, ("Owner inherit.fc", "(2, 3, 1, 1)")),
        # Nothing would be taken over.
        ({"relu": "relu"}, ("Owner inherit.relu", "no weights")),
    ],
)
def test_modules_that_do_not_match(inherit: dict[str, str], parts: tuple[str, ...]) -> None:
    student = network(fc=nn.Linear(3, 2), relu=nn.ReLU())
    teacher = network(
        fc=nn.Linear(3, 2),
        wide=nn.Linear(8, 2),
        many=nn.Linear(3, 9),
        unbiased=nn.Linear(3, 2, bias=False),
        conv=nn.Conv2d(3, 2, 1),
        relu=nn.ReLU(),
    )
    with pytest.raises(ValueError) as error:
        inheritances("Owner", student, Given(teacher), inherit)
    missing = [part for part in parts if part not in str(error.value)]
    assert not missing, f"{missing} not in: {error.value}"
