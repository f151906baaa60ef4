"""The student as its own teacher: what it says, and what it costs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from helpers.plain_loops import batch, net, trained
from mmkd.distiller import Distiller
from mmkd.engine.plain import distill
from mmkd.errors import InputError
from mmkd.registry import MODELS
from mmkd.targets import Targets

SELF = dict(student=True)


@MODELS.register_module()
class ToyShallowFromDeep(Distiller):
    """The mean of the student's side, plus nothing that a gradient could take from the other."""

    def distance(self, student: Tensor, teacher: Tensor, targets: Targets | None = None) -> Tensor:
        assert not teacher.requires_grad
        return student.square().mean() + teacher.square().mean()


TERM = dict(
    one=dict(type="ToyShallowFromDeep", student="backbone.0", teacher="backbone", weight=2.0)
)


def test_its_features_are_those_of_the_training_s_own_pass() -> None:
    student = net(4, dropout=0.5)
    calls: list[int] = []
    outputs: dict[str, Tensor] = {}
    with distill(student, SELF, TERM) as distillation:
        student.register_forward_hook(lambda *_: calls.append(1))
        for name in ("backbone", "backbone.0"):
            module = student.get_submodule(name)
            module.register_forward_hook(lambda m, x, y, name=name: outputs.update({name: y}))
        images, _ = batch()
        student.train()
        student(images)
        loss = distillation.loss(images)
    assert calls == [1]
    shallow, deep = (outputs[name].square().mean() for name in ("backbone.0", "backbone"))
    torch.testing.assert_close(loss, 2 * (shallow + deep))
    (gradient,) = torch.autograd.grad(loss, student.backbone[0].weight, retain_graph=True)
    (expected,) = torch.autograd.grad(2 * shallow, student.backbone[0].weight)
    # Nothing reaches it through the teacher's side.
    torch.testing.assert_close(gradient, expected)


def test_nothing_of_it_is_kept() -> None:
    student = net(4)
    distillation = distill(student, SELF, TERM)
    trained(student, distillation, steps=2)
    assert distillation.state_dict()["distillers"] == {}
    (teacher,) = distillation.teachers.values()
    assert teacher.introduction == "distill teacher: the student itself, in its own forward pass"
    assert not any(module._forward_hooks for module in student.modules())


def test_what_it_refuses() -> None:
    with pytest.raises(InputError, match=r"distill teacher\.student: expected True, got False"):
        distill(net(4), dict(student=False), TERM)
    with pytest.raises(InputError, match=r"(?s)terms\.one\.teacher.*no module 'nowhere'"):
        distill(net(4), SELF, dict(one={**TERM["one"], "teacher": "nowhere"}))
