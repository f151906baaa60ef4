"""Mixed precision, averaged weights and other features of the Runner that touch the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.device import utils as device_utils
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.runner import Runner, amp

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

DTYPES = ["bfloat16", "float16"]


@pytest.fixture
def amp_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """MMEngine wants an accelerator for its wrapper, and bfloat16 alone on the CPU."""

    @contextmanager
    def autocast(dtype: torch.dtype) -> Iterator[None]:
        with torch.autocast("cpu", dtype=dtype):
            yield

    monkeypatch.setattr(amp_optimizer_wrapper, "is_cuda_available", lambda: True)
    scaler = partial(torch.amp.GradScaler, "cpu", init_scale=1024.0)
    monkeypatch.setattr(amp_optimizer_wrapper, "GradScaler", scaler)
    monkeypatch.setattr(amp, "autocast", autocast)


class Types:
    """The types that taps and terms met."""

    def __init__(self) -> None:
        self.student: set[torch.dtype] = set()
        self.teacher: set[torch.dtype] = set()
        self.probe = Probe(before_train=self.watch)

    def watch(self, runner: Runner) -> None:
        hook = distill_hook_of(runner)
        for backbone, types in (
            (runner.model.backbone, self.student),
            (hook.teachers["teacher"].model.backbone, self.teacher),
        ):
            # The convolution's: a batch normalisation may return another.
            backbone.conv2.register_forward_hook(
                lambda module, args, output, types=types: types.add(output.dtype)
            )


@pytest.mark.parametrize("dtype", DTYPES)
def test_amp(tmp_path: Path, teacher: dict, amp_on_cpu: None, dtype: str) -> None:
    settings = {
        "train_dataloader.sampler.shuffle": False,
        "optim_wrapper.clip_grad": dict(max_norm=1.0),
        **distill(teacher),
    }
    full, half, types = LossRecorder(), LossRecorder(), Types()
    train(toy_config(tmp_path, **settings), full)
    settings["optim_wrapper"] = dict(type="AmpOptimWrapper", dtype=dtype)
    runner = train(toy_config(tmp_path, **settings), half, types.probe)
    assert types.student == types.teacher == {getattr(torch, dtype)}
    for ours, theirs in zip(half.logged, full.logged, strict=True):
        assert ours["distill_backbone"] == pytest.approx(theirs["distill_backbone"], abs=0.1)
    hook = distill_hook_of(runner)
    assert all(p.dtype == torch.float32 for p in hook.distillers.parameters())
    # Resumed, the scaler's state included.
    first = str(Path(runner.work_dir) / "epoch_1.pth")
    resumed = train(toy_config(tmp_path, **settings, load_from=first, resume=True))
    ends = [checkpoint_of(each, "epoch_2.pth") for each in (runner, resumed)]
    assert ends[0]["optimizer"]["loss_scaler"]["scale"] == 1024
    for key in ("state_dict", "optimizer", "mmkd"):
        assert not differences(ends[0][key], ends[1][key])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_share_under_a_loss_scale(
    tmp_path: Path, teacher: dict, amp_on_cpu: None, dtype: str
) -> None:
    """The scale doubles every third step; the weights are those of a training in float32."""
    settings = {
        "model.dropout": 0.0,
        "train_cfg.max_epochs": 4,
        **distill(teacher, dict(one=dict(weight=dict(share=0.4)))),
    }
    full, half = LossRecorder(), LossRecorder()
    train(toy_config(tmp_path, **settings), full)
    scaler = dict(init_scale=2.0**10, growth_interval=3)
    settings["optim_wrapper"] = dict(type="AmpOptimWrapper", dtype=dtype, loss_scale=scaler)
    runner = train(toy_config(tmp_path, **settings), half)
    assert runner.optim_wrapper.loss_scaler.get_scale() == 2.0**15
    weights = [[each["distill_weight_one"] for each in run.logged] for run in (half, full)]
    assert weights[0] == pytest.approx(weights[1], rel=0.05)
    shares = runner.message_hub.get_scalar("train/distill_share_one").data[0]
    assert shares[0] == 0
    assert sum(shares[4:]) / 12 == pytest.approx(0.4, rel=0.2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", DTYPES)
def test_amp_on_a_gpu(
    tmp_path: Path, teacher: dict, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_utils, "DEVICE", "cuda")
    settings = {"optim_wrapper": dict(type="AmpOptimWrapper", dtype=dtype), **distill(teacher)}
    recorder, types = LossRecorder(), Types()
    train(toy_config(tmp_path, **settings), recorder, types.probe)
    assert types.student == types.teacher == {getattr(torch, dtype)}
    distances = [logged["distill_backbone"] for logged in recorder.logged]
    assert all(0 < distance < 20 for distance in distances)


def test_infinite_gradients_are_skipped(
    tmp_path: Path, teacher: dict, amp_on_cpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss scale beyond float16: no step, of the projector neither, until it has come down."""
    scaler = partial(torch.amp.GradScaler, "cpu", init_scale=2.0**80)
    monkeypatch.setattr(amp_optimizer_wrapper, "GradScaler", scaler)
    weights: list[torch.Tensor] = []

    def keep(runner: Runner) -> None:
        projector = distill_hook_of(runner).distillers["backbone"].projector
        weights.append(projector.linear.weight.detach().clone())

    settings = {"optim_wrapper": dict(type="AmpOptimWrapper", dtype="float16")}
    config = toy_config(tmp_path, **settings, **distill(teacher))
    train(config, Probe(before_train=keep, after_train_iter=keep))
    assert all(torch.equal(weight, weights[0]) for weight in weights)


# What else touches the model --------------------------------------------------------------


def test_averaged_weights(tmp_path: Path, teacher: dict) -> None:
    settings = {**VALIDATION, **distill(teacher)}
    settings["custom_hooks"] += [dict(type="EMAHook", momentum=0.3, update_buffers=True)]
    settings["default_hooks.checkpoint"] = dict(save_best="accuracy")
    hooked: list[str] = []

    def watch(runner: Runner) -> None:
        averaged = next(h for h in runner.hooks if type(h).__name__ == "EMAHook").ema_model
        for name, module in averaged.named_modules():
            if module._forward_hooks or module._forward_pre_hooks:
                hooked.append(name)

    runner = train(toy_config(tmp_path, **settings), Probe(after_train_iter=watch))
    assert hooked == []
    plain = train(toy_config(tmp_path))
    keys = list(plain.model.state_dict())
    checkpoint = checkpoint_of(runner, "epoch_2.pth")
    assert list(checkpoint["state_dict"]) == keys
    assert set(checkpoint["ema_state_dict"]) == {"steps", *(f"module.{key}" for key in keys)}
    plain.model.load_state_dict(checkpoint["state_dict"], strict=True)
    # Resumed, the averaged weights included.
    first = str(Path(runner.work_dir) / "epoch_1.pth")
    resumed = train(toy_config(tmp_path, **settings, load_from=first, resume=True))
    again = checkpoint_of(resumed, "epoch_2.pth")
    for key in ("state_dict", "ema_state_dict", "optimizer", "mmkd"):
        assert not differences(checkpoint[key], again[key])


def losses_of(config: Any) -> list[dict[str, float]]:
    recorder = LossRecorder()
    train(config, recorder)
    return recorder.logged


@pytest.mark.parametrize(
    "make",
    [
        lambda config: config.merge_from_dict(dict(efficient_conv_bn_eval=["backbone"])),
        lambda config: config.merge_from_dict(dict(activation_checkpointing=["neck"])),
    ],
    ids=["efficient_conv_bn_eval", "activation_checkpointing"],
)
def test_changed_forwards(tmp_path: Path, teacher: dict, make: Callable[[Any], None]) -> None:
    """The same losses, whatever replaces the forward of the student's modules."""
    terms = dict(backbone=dict(weight=dict(share=0.3)), neck=dict(student="neck", teacher="neck"))
    model = dict(type="ToyModel", norm_eval=True)
    config = toy_config(tmp_path, model=model, **distill(teacher, terms))
    expected = losses_of(config)
    config = toy_config(tmp_path, model=model, **distill(teacher, terms))
    make(config)
    for ours, theirs in zip(losses_of(config), expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)
