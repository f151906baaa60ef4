"""What distillation does to a run, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from helpers.detector import detector_config, write_detector_teacher
from helpers.toy import (
    VALIDATION,
    LossRecorder,
    Probe,
    checkpoint_of,
    differences,
    distill,
    distill_hook_of,
    toy_config,
    train,
)
from mmkd.engine.random_state import random_state

LOGS = ("meta", "message_hub")


class Kind:
    """A model with its data: plain and distilled runs of it.

    Attributes:
        plain: What the plain run ended in, and the random states after it.
    """

    def __init__(self, make: Callable[..., Config], teacher: dict) -> None:
        self._make, self._teacher = make, teacher
        self.plain = self._run()

    def _run(self, **settings: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        states: list[dict] = []
        keep_state = Probe(after_train=lambda runner: states.append(random_state()))
        runner = train(self._make(**settings), keep_state)
        checkpoint = checkpoint_of(runner, "epoch_2.pth")
        return {k: v for k, v in checkpoint.items() if k not in LOGS}, states[0]

    def distilled(self, terms: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """The same of a distilled run."""
        return self._run(**distill(self._teacher, terms))


@pytest.fixture(scope="module", params=["toy", "toy with workers", "Faster R-CNN"])
def kind(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, teacher: dict
) -> Kind:
    folder = tmp_path_factory.mktemp("runs")
    if request.param == "Faster R-CNN":
        digits = request.getfixturevalue("digits")
        return Kind(partial(detector_config, digits, folder), write_detector_teacher(folder))
    workers = 2 if "workers" in request.param else 0
    settings = {
        **VALIDATION,
        "train_dataloader.num_workers": workers,
        "train_dataloader.dataset.flip": True,
    }
    return Kind(partial(toy_config, folder, **settings), teacher)


def test_weight_zero_ends_in_the_bits_of_a_plain_run(kind: Kind) -> None:
    plain, plain_state = kind.plain
    distilled, state = kind.distilled(
        dict(
            backbone=dict(weight=0.0),
            connector=dict(weight=0.0, projector=dict(type="mmkd.ConvConnector")),
            share=dict(weight=dict(share=0.0)),
        )
    )
    assert not differences(plain["state_dict"], distilled["state_dict"])
    assert not differences(plain["optimizer"]["state"], distilled["optimizer"]["state"])
    groups = plain["optimizer"]["param_groups"]
    assert not differences(groups, distilled["optimizer"]["param_groups"][: len(groups)])
    assert not differences(plain_state, state)


def test_a_seeded_run_repeats_to_the_bit(kind: Kind) -> None:
    first, second = kind.distilled(), kind.distilled()
    assert not differences(first, second)
    assert differences(kind.plain[0]["state_dict"], first[0]["state_dict"])


def test_the_student_comes_closer_to_the_teacher(tmp_path: Path, teacher: dict) -> None:
    recorder = LossRecorder()
    config = toy_config(tmp_path, **distill(teacher), **{"train_cfg.max_epochs": 15})
    train(config, recorder)
    distances = [logged["distill_backbone"] for logged in recorder.logged]
    assert sum(distances[-4:]) / 4 < sum(distances[:4]) / 4 - 0.5


@pytest.mark.parametrize("extra", [{}, {"optim_wrapper.clip_grad": dict(max_norm=0.5)}])
def test_every_projector_parameter_is_trained_once(
    tmp_path: Path, teacher: dict, extra: dict
) -> None:
    before: dict[str, torch.Tensor] = {}
    after: dict[str, torch.Tensor] = {}

    def copy_into(copy: dict[str, torch.Tensor]) -> Callable[[Runner], None]:
        return lambda runner: copy.update(
            (key, value.detach().clone())
            for key, value in distill_hook_of(runner).distillers.named_parameters()
            if key not in copy
        )

    terms = dict(
        linear=dict(),
        mlp=dict(projector=dict(type="mmkd.MLPProjector", hidden_channels=8)),
        ensemble=dict(projector=dict(type="mmkd.ProjectorEnsemble")),
        connector=dict(projector=dict(type="mmkd.ConvConnector"), level=0),
    )
    config = toy_config(tmp_path, **distill(teacher, terms), **extra)
    runner = train(config, Probe(before_train=copy_into(before), after_train_iter=copy_into(after)))
    assert len(before) == 2 + 4 + 2 + 9
    unmoved = [key for key in before if torch.equal(before[key], after[key])]
    assert unmoved == []
    hook = distill_hook_of(runner)
    trained = [id(p) for group in runner.optim_wrapper.param_groups for p in group["params"]]
    for parameter in (*hook.distillers.parameters(), *runner.model.parameters()):
        assert trained.count(id(parameter)) == 1
    teachers = [p for t in hook.teachers.values() for p in t.model.parameters()]
    assert teachers
    assert not {id(parameter) for parameter in teachers} & set(trained)


def test_the_config_can_be_printed(tmp_path: Path, teacher: dict, formatting: None) -> None:
    config = toy_config(tmp_path, **distill(teacher, dict(backbone=dict(weight=0.5))))
    # Formatted by yapf, which chokes on anything but plain values.
    text = Runner.from_cfg(config).cfg.pretty_text
    assert Config.fromstring(text, ".py").custom_hooks == config.custom_hooks
