"""Every shipped detection config builds, fits together and takes a training step."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from helpers.small_scale import (
    CONFIGS,
    SHIPPED,
    backbone_outputs,
    build,
    distill_settings,
    is_distillation,
    one_step,
    read,
    write_shrunk_teacher,
)
from mmkd import DistillHook

every_config = pytest.mark.parametrize(
    "path", SHIPPED, ids=[str(p.relative_to(CONFIGS)) for p in SHIPPED]
)
# Without their classifiers, as torchvision counts them.
BACKBONES = {"mbv2": 2_223_872, "r18": 11_176_512, "r50": 23_508_032}


class Recorder(Hook):
    """The losses of every step, and all weights as training begins."""

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []
        self.begin: dict[str, Tensor] = {}

    def before_train(self, runner: Runner) -> None:
        self.begin = weights(runner)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.losses.append({key: float(value) for key, value in outputs.items()})


def weights(runner: Runner) -> dict[str, Tensor]:
    """The student's parameters, and the projectors' under ``distill.``."""
    named = dict(runner.model.named_parameters())
    for hook in runner.hooks:
        if isinstance(hook, DistillHook):
            assert hook.distillers is not None
            named |= {f"distill.{k}": p for k, p in hook.distillers.named_parameters()}
    return {key: p.detach().clone() for key, p in named.items()}


def test_there_are_configs() -> None:
    assert len(SHIPPED) >= 12
    assert {"bccd", "digits", "faster_rcnn", "neu_det"} <= {path.parent.name for path in SHIPPED}


@every_config
def test_takes_a_training_step(path: Path, tmp_path: Path) -> None:
    config = read(path)
    one_step(config, tmp_path, name=f"{path.parent.name}-{path.stem}")
    distills = is_distillation(config)
    if distills:
        write_shrunk_teacher(config, tmp_path)
    runner = Runner.from_cfg(config)
    recorder = Recorder()
    runner.register_hook(recorder)
    runner.train()

    (losses,) = recorder.losses
    assert all(math.isfinite(value) for value in losses.values()), losses
    terms = {key for key in losses if key.startswith("loss_distill_")}
    assert bool(terms) == distills
    own = {"loss_rpn_cls"} if "rpn_head" in config.model else {"loss_dfl"}
    assert {"loss", "loss_cls", "loss_bbox", *own} <= losses.keys()
    assert losses["loss"] == pytest.approx(
        sum(v for k, v in losses.items() if k.startswith("loss_")), rel=1e-5
    )
    moved = {
        key for key, value in weights(runner).items() if not torch.equal(value, recorder.begin[key])
    }
    assert any(key.startswith("backbone.") for key in moved)
    assert any(key.startswith(("roi_head.", "bbox_head.")) for key in moved)
    assert any(key.startswith("distill.") for key in moved) == distills


@every_config
def test_parts_fit_at_full_size(path: Path) -> None:
    model = read(path).model
    channels, strides = backbone_outputs(model.backbone)
    assert channels == list(model.neck.in_channels)
    width = model.neck.out_channels
    dense_head = model.get("rpn_head") or model.bbox_head
    assert dense_head.in_channels == width
    levels = dense_head.anchor_generator.strides
    assert len(levels) == model.neck.num_outs
    assert list(levels[: len(strides)]) == strides
    if "roi_head" in model:
        assert model.roi_head.bbox_roi_extractor.out_channels == width
        assert model.roi_head.bbox_head.in_channels == width
        assert set(model.roi_head.bbox_roi_extractor.featmap_strides) <= set(strides)

    with torch.device("meta"):
        parameters = sum(p.numel() for p in build(model).parameters())
    if path.parent.name == "faster_rcnn":
        student = path.stem.split("_")[1].removesuffix("-fpn")
        assert parameters == BACKBONES[student] + parameters_after(channels)
    else:
        assert parameters < 5e6  # two cores train it in minutes


def parameters_after(backbone_channels: list[int]) -> int:
    """Of FPN, RPN and box head of a stock Faster R-CNN with 80 classes."""
    laterals = sum(256 * c + 256 for c in backbone_channels)
    fpn = laterals + 4 * (256 * 256 * 9 + 256)
    rpn = (256 * 256 * 9 + 256) + (256 * 3 + 3) + (256 * 12 + 12)
    box_head = (256 * 49 * 1024 + 1024) + (1024 * 1024 + 1024)
    return fpn + rpn + box_head + (1024 * 81 + 81) + (1024 * 320 + 320)


@pytest.mark.parametrize(
    "path",
    [p for p in SHIPPED if "distill" in p.stem or "ensemble" in p.stem],
    ids=lambda p: p.stem,
)
def test_a_pair_only_adds_the_hook(path: Path) -> None:
    pair = read(path)
    assert is_distillation(pair)
    alone = read((path.parent / _baseline(path)).resolve())
    assert pair.model == alone.model
    changed = {k for k in pair if pair[k] != alone.get(k)} | {k for k in alone if k not in pair}
    assert changed <= {"custom_hooks", "teacher_checkpoint"}
    plain = (dict, list, tuple, str, int, float, bool, type(None))
    assert _are(distill_settings(pair).to_dict(), plain)


def _baseline(path: Path) -> str:
    """The name of the config that a distillation config builds on."""
    for line in path.read_text().splitlines():
        if line.startswith("_base_ = "):
            return line.split('"')[1]
    raise AssertionError(f"{path} builds on no other config")


def _are(value: Any, kinds: tuple[type, ...]) -> bool:
    inner = value.values() if isinstance(value, dict) else value
    inner = inner if isinstance(value, dict | list | tuple) else ()
    return type(value) in kinds and all(_are(each, kinds) for each in inner)


def test_the_90k_schedule_is_review_kds() -> None:
    config = read(CONFIGS / "faster_rcnn/faster-rcnn_mbv2-fpn_90k_coco.py")
    assert config.train_cfg.type == "IterBasedTrainLoop"
    assert config.train_cfg.max_iters == 90_000
    assert config.auto_scale_lr.base_batch_size == 16
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr) == ("SGD", 0.02)
    assert (optimizer.momentum, optimizer.weight_decay) == (0.9, 1e-4)
    warm_up, steps = config.param_scheduler
    assert (warm_up.type, warm_up.by_epoch) == ("LinearLR", False)
    assert (steps.milestones, steps.gamma, steps.by_epoch) == ([60_000, 80_000], 0.1, False)
    resize = config.train_dataloader.dataset.pipeline[2]
    assert {max(scale) for scale in resize.scales} == {1333}
    assert sorted(min(scale) for scale in resize.scales) == list(range(640, 801, 32))
    assert config.train_dataloader.sampler.type == "InfiniteSampler"
