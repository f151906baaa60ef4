"""Shares of the gradient in trainings of MMEngine's: by hand, reached, resumed."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.runner import Runner
from torch import nn
from torch.nn.functional import cross_entropy

from helpers.toy import LossRecorder, Probe, distill, distill_hook_of, toy_config, train


class ByHand:
    """Norms of the gradients at the student's feature, each of a graph of its own.

    Attributes:
        task, distance: Norms of every iteration.
    """

    def __init__(self) -> None:
        self.task: list[float] = []
        self.distance: list[float] = []
        self.probe = Probe(before_train=self.start)

    def start(self, runner: Runner) -> None:
        self.hook = distill_hook_of(runner)
        runner.model.backbone.register_forward_hook(self.keep)
        runner.model.register_forward_hook(self.measure, with_kwargs=True)

    def keep(self, module: nn.Module, args: Any, output: Any) -> None:
        self.feature = output[-1].detach().requires_grad_()

    def measure(self, model: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        feature, samples = self.feature, kwargs["data_samples"]
        logits = model.head(torch.relu(model.neck(feature)).mean(dim=(2, 3)))
        labels = torch.tensor([sample.label for sample in samples])
        size = 0.01 * (logits.square().mean() + logits.abs().mean())
        distiller = copy.deepcopy(self.hook.distillers["one"])
        [teacher] = self.hook.teachers.values()
        theirs = teacher.features(kwargs["inputs"], samples)["backbone"][-1]
        for norms, value in (
            (self.task, cross_entropy(logits, labels) + size),
            (self.distance, distiller.distance(feature, theirs)),
        ):
            norms.append(torch.autograd.grad(value, feature)[0].norm().item())


def of_iterations(runner: Runner, key: str) -> list[float]:
    """What was logged in each, by each of the trainings that went on."""
    files = sorted(Path(runner.work_dir).glob("*/vis_data/scalars.json"))
    return [json.loads(line)[key] for file in files for line in file.read_text().splitlines()]


@pytest.mark.parametrize("accumulated", [1, 2])
def test_weights_and_shares_by_hand(tmp_path: Path, teacher: dict, accumulated: int) -> None:
    """Also where the trainer divides the objective by the batches of an optimizer's step."""
    by_hand, recorder = ByHand(), LossRecorder()
    settings = {
        "model.dropout": 0.0,
        "optim_wrapper.accumulative_counts": accumulated,
        **distill(teacher, dict(one=dict(weight=dict(share=0.3)))),
    }
    runner = train(toy_config(tmp_path, **settings), by_hand.probe, recorder)
    weights = [each["distill_weight_one"] for each in recorder.logged]
    logs = [math.log(t / d) for t, d in zip(by_hand.task, by_hand.distance, strict=True)]
    means = [sum(logs[:i]) / i for i in range(1, len(logs))]
    expected = [0.0, *(0.3 / 0.7 * math.exp(mean) for mean in means)]
    assert weights == pytest.approx(expected, rel=1e-4)
    assert of_iterations(runner, "distill_share_one") == pytest.approx(
        [
            w * d / (t + w * d)
            for w, t, d in zip(weights, by_hand.task, by_hand.distance, strict=True)
        ],
        rel=1e-4,
    )


def test_shares_are_reached(tmp_path: Path, teacher: dict) -> None:
    """Of distances whose gradients are of other sizes, at one feature and at another."""
    terms = dict(
        logsum=dict(weight=dict(share=0.3)),
        pkd=dict(weight=dict(share=0.2), loss=dict(type="mmkd.PKDLoss")),
        early=dict(level=0, weight=dict(share=0.5), loss=dict(type="mmkd.MSELoss")),
    )
    settings = {
        "optim_wrapper.optimizer.lr": 0.001,
        "train_cfg.max_epochs": 10,
        **distill(teacher, terms),
    }
    runner = train(toy_config(tmp_path, **settings))
    for name, share in (("logsum", 0.3), ("pkd", 0.2), ("early", 0.5)):
        last = of_iterations(runner, f"distill_share_{name}")[20:]
        assert sum(last) / len(last) == pytest.approx(share, rel=0.2)
    weights = {of_iterations(runner, f"distill_weight_{name}")[-1] for name in terms}
    assert max(weights) > 3 * min(weights)


def test_a_term_alone_has_its_share_while_others_are_off(tmp_path: Path, teacher: dict) -> None:
    half = dict(weight=dict(share=0.4))
    terms = dict(whole=half, part=dict(half, schedule=dict(begin=4, end=6)))
    settings = {**distill(teacher, terms), "train_cfg.max_epochs": 12}
    runner = train(toy_config(tmp_path, **settings))
    shares = of_iterations(runner, "distill_share_whole")
    for begin, end in ((4, 16), (18, 24), (24, 48)):
        mean = sum(shares[begin:end]) / (end - begin)
        assert mean == pytest.approx(0.4, rel=0.2)


def test_a_resumed_run_logs_what_the_whole_one_does(tmp_path: Path, teacher: dict) -> None:
    settings = distill(teacher, dict(one=dict(weight=dict(share=0.3)), fixed=dict(level=0)))
    whole = train(toy_config(tmp_path, **settings))
    checkpoint = str(Path(whole.work_dir) / "epoch_1.pth")
    resumed = train(toy_config(tmp_path, **settings, load_from=checkpoint, resume=True))
    for key in ("distill_weight_one", "distill_share_one", "distill_share_fixed"):
        assert of_iterations(resumed, key) == of_iterations(whole, key)[4:]


def test_a_plain_run_goes_on_without_what_shares_have_left(tmp_path: Path, teacher: dict) -> None:
    settings = distill(teacher, dict(one=dict(weight=dict(share=0.3))))
    distilled = train(toy_config(tmp_path, **settings))
    content = torch.load(Path(distilled.work_dir) / "epoch_1.pth", weights_only=False)
    stock = {key: value for key, value in content.items() if key != "mmkd"}
    found = [name for name in stock["message_hub"]["log_scalars"] if "distill" in name]
    assert found == [] and "balance" not in str(stock["state_dict"].keys())
    checkpoint = str(Path(distilled.work_dir) / "epoch_1.pth")
    plain = train(toy_config(tmp_path, load_from=checkpoint, resume=True))
    assert plain.iter == 8
