"""A moving average of the student as its teacher, in loops and in MMEngine's trainer."""

from __future__ import annotations

import copy
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers import plain_loops
from helpers.detector import detector_config
from helpers.plain_loops import batch, net, trained, weights
from helpers.toy import checkpoint_of, differences, distill, toy_config, train
from mmkd.engine import plain
from mmkd.engine.averaged_student import AveragedStudent
from mmkd.errors import InputError

EMA = dict(ema=0.6)


def average(settings: Any) -> AveragedStudent:
    """The teacher of a distillation."""
    [teacher] = settings.teachers.values()
    assert isinstance(teacher, AveragedStudent)
    return teacher


class Normalised(nn.Module):
    """A backbone with running statistics and a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.Tanh())
        self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images).mean(dim=(2, 3)))


@pytest.mark.parametrize("momentum", [0.0, 0.6, 0.999])
def test_it_averages_what_the_steps_leave(momentum: float) -> None:
    """Weights and running statistics, with a momentum of at most i / (i + 1) in iteration i."""
    torch.manual_seed(0)
    student = Normalised()
    distillation = plain.distill(student, dict(ema=momentum))
    teacher = average(distillation)
    optimizer = plain_loops.optimizer(student, distillation)
    expected: dict[str, Tensor] = {}
    for index in range(5):
        m = min(momentum, index / (index + 1))
        for name, value in weights(student).items():
            now = value.double()
            expected[name] = now if not index else m * expected[name] + (1 - m) * now
        trained(student, distillation, steps=1, start=index, optimizer=optimizer)
        for name, value in teacher.model.state_dict().items():
            if value.is_floating_point():
                torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
    counter = "backbone.1.num_batches_tracked"
    assert teacher.model.state_dict()[counter] == student.state_dict()[counter] - 1


def test_features_are_those_of_the_average_in_eval_mode() -> None:
    student = net(4, dropout=0.5)
    distillation = plain.distill(student, EMA, dict(out=dict(student="head", teacher="head")))
    trained(student, distillation, steps=3)
    images, _ = batch(9)
    model = average(distillation).model
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    with torch.no_grad():
        assert torch.equal(average(distillation).features(images)["head"], model(images))
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_masks_without_end_stay_so() -> None:
    student = net(4)
    student.register_buffer("mask", torch.tensor([0.0, -math.inf]))
    distillation = plain.distill(student, dict(ema=0.9))
    trained(student, distillation, steps=4)
    assert average(distillation).model.mask.tolist() == [0, -math.inf]


def test_it_follows_while_no_term_is_on() -> None:
    terms = dict(late=dict(schedule=dict(begin=3, by_epoch=False)))
    ours, other = net(4), net(4)
    late = plain.distill(ours, EMA, terms)
    trained(ours, late, steps=3)
    # Without any weight in the objective, the student's way is the same.
    off = plain.distill(other, EMA, dict(off=dict(weight=0)))
    trained(other, off, steps=3)
    for a, b in zip(average(late).model.parameters(), average(off).model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(next(average(late).model.parameters()), next(ours.parameters()))


def test_an_iteration_that_begins_again_counts_once() -> None:
    student = net(4)
    distillation = plain.distill(student, EMA)
    images, _ = batch()
    with distillation:
        student.train()
        student(images)
        distillation.loss(images)
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.add_(1.0)
        for _ in range(3):
            with pytest.raises(RuntimeError):
                student(images[:, :2])
        student(images)
        distillation.loss(images)
    # Half of it, as in a second iteration.
    for theirs, ours in zip(
        average(distillation).model.parameters(), student.parameters(), strict=True
    ):
        torch.testing.assert_close(theirs, ours - 0.5)


def test_a_loop_is_resumed_to_the_bit() -> None:
    def begun() -> tuple[Any, ...]:
        student = net(4)
        distillation = plain.distill(student, EMA)
        return student, distillation, plain_loops.optimizer(student, distillation)

    whole, distillation, optimizer = begun()
    trained(whole, distillation, steps=4, optimizer=optimizer)
    end = distillation.state_dict()
    part, distillation, optimizer = begun()
    trained(part, distillation, steps=2, optimizer=optimizer)
    saved = copy.deepcopy([each.state_dict() for each in (part, distillation, optimizer)])
    resumed = begun()
    for each, state in zip(resumed, saved, strict=True):
        each.load_state_dict(state)
    student, distillation, optimizer = resumed
    trained(student, distillation, steps=2, start=2, optimizer=optimizer)
    assert differences(weights(whole), weights(student)) == []
    assert differences(end, distillation.state_dict()) == []
    assert end["distillers"]["teachers"]["teacher"]["n_averaged"] == 4
    with pytest.raises(RuntimeError, match=r"averages .* of the teachers \['teacher'\], expected"):
        plain.distill(net(4), net(4, seed=1)).load_state_dict(saved[1])


def test_beside_another_teacher() -> None:
    student = net(4)
    distillation = plain.distill(
        student,
        dict(own=EMA, other=dict(module=net(6, seed=1))),
        dict(a=dict(source="own"), b=dict(source="other")),
    )
    trained(student, distillation, steps=2)
    assert set(distillation.measured) == {"a", "b"}
    assert list(distillation.state_dict()["distillers"]["teachers"]) == ["own"]


@pytest.mark.parametrize("momentum", [1, 1.5, -0.1, "much", None, True])
def test_a_momentum_out_of_range(momentum: Any) -> None:
    message = "distill teacher.ema: expected the momentum .* got " + re.escape(repr(momentum))
    with pytest.raises(InputError, match=message):
        plain.distill(net(4), dict(ema=momentum))


def test_a_runner_s_checkpoints_hold_it(tmp_path: Path) -> None:
    """A run that was stopped and resumed ends in the bits of one that was not; the file's student
    has the keys that it always has."""
    settings = distill(EMA, dict(deep=dict(), tokens=dict(student="neck", teacher="neck")))
    whole = train(toy_config(tmp_path, **settings))
    first = str(Path(whole.work_dir) / "epoch_1.pth")
    resumed = train(toy_config(tmp_path, **settings, load_from=first, resume=True))
    ends = [checkpoint_of(each, "epoch_2.pth") for each in (whole, resumed)]
    for key in ("state_dict", "optimizer", "mmkd"):
        assert differences(ends[0][key], ends[1][key]) == []
    followed = ends[0]["mmkd"]["distillers"]["teachers"]["teacher"]
    assert followed["n_averaged"] == 8
    plain_run = checkpoint_of(train(toy_config(tmp_path)), "epoch_2.pth")
    assert ends[0]["state_dict"].keys() == plain_run["state_dict"].keys()


def test_faster_rcnn_teaches_itself(tmp_path: Path, digits: Path) -> None:
    """Its backbone, and its head on the student's own regions."""
    terms = dict(
        maps=dict(stride="all", weight=dict(share=0.3)),
        regions=dict(student="roi.classes", teacher="roi.classes", loss=dict(type="mmkd.KDLoss")),
    )
    config = detector_config(digits, tmp_path, **distill(EMA, terms))
    config.train_cfg.max_epochs = 1
    saved = checkpoint_of(train(config), "epoch_1.pth")
    followed = saved["mmkd"]["distillers"]["teachers"]["teacher"]
    assert {f"module.{key}" for key in saved["state_dict"]} <= set(followed)
