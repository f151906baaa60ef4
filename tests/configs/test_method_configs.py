"""Every method's published pair builds at full size and takes a real step when it is narrowed."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from mmengine.hub import get_config
from mmengine.runner import Runner

from helpers.small_scale import (
    METHODS,
    build,
    distill_settings,
    one_step,
    read,
    scope_of,
    write_shrunk_teacher,
)
from helpers.toy import LossRecorder, distill_hook_of
from mmkd import DistillHook
from mmkd.engine.mmengine.detector_heads import named_outputs

every_method = pytest.mark.parametrize("path", METHODS, ids=[p.stem for p in METHODS])
# What a config's name begins with.
EXPECTED = {
    "cwd", "cwd-logits", "crosskd", "dkd", "dkd-reviewkd", "fbkd", "fgd", "fgfi", "fitnet", "kd",
    "ld", "mgd", "pkd", "reviewkd", "tokens",
}  # fmt: skip


def test_there_is_one_of_each_method() -> None:
    assert {path.stem.partition("_")[0] for path in METHODS} == EXPECTED


# Of the papers' students and teachers, those whose schedule is not their config's plainest.
SCHEDULES = {
    "crosskd_retinanet_r50-fpn_r101_2x_coco": (24, "retinanet_r101_fpn_2x_coco"),
    "crosskd_fcos_r50-fpn_r101_ms-2x_coco": (24, "fcos_r101-caffe_fpn_gn-head_ms-640-800-2x_coco"),
    "fbkd_faster-rcnn_r50-fpn_r101_1x_coco": (12, "faster-rcnn_r101_fpn_2x_coco"),
    "reviewkd_faster-rcnn_mbv2-fpn_r50_90k_coco": (None, "faster-rcnn_r50_fpn_ms-3x_coco"),
    "dkd_faster-rcnn_r18-fpn_r101_90k_coco": (None, "faster-rcnn_r101_fpn_ms-3x_coco"),
    "dkd-reviewkd_faster-rcnn_r50-fpn_r101_90k_coco": (None, "faster-rcnn_r101_fpn_ms-3x_coco"),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_students_and_teachers_are_trained_as_the_papers_are(name: str) -> None:
    epochs, teacher = SCHEDULES[name]
    config = read(next(path for path in METHODS if path.stem == name))
    assert config.train_cfg.get("max_epochs") == epochs
    assert (epochs is not None) or config.train_cfg.max_iters == 90_000
    assert Path(distill_settings(config).teacher.config).stem == teacher


@every_method
def test_builds_at_full_size(path: Path) -> None:
    """And what is compared is there, in both networks."""
    config = read(path)
    settings = distill_settings(config)
    theirs = get_config(settings.teacher.config).model
    arguments = {k: v for k, v in settings.items() if k != "type"}
    terms = DistillHook(**arguments).terms
    scopes = ("mmdet", scope_of(settings.teacher.config))
    with torch.device("meta"):
        networks = [
            build({**model, "init_cfg": None}, scope)
            for model, scope in zip((config.model, theirs), scopes, strict=True)
        ]
    for term in terms:
        for network, taps in zip(networks, (term.student, term.teacher), strict=True):
            for tap in taps:
                for module in named_outputs(network, tap.path) or [tap.path]:
                    assert network.get_submodule(module.removesuffix("*"))
    for key in settings.get("inherit") or {}:
        assert all(network.get_submodule(key) for network in networks)


@every_method
def test_takes_a_training_step(path: Path, tmp_path: Path) -> None:
    config = read(path)
    one_step(config, tmp_path, name=f"method-{path.stem}")
    write_shrunk_teacher(config, tmp_path)
    # The shrunk teacher's weights are drawn with seed 0: another, or the two would agree.
    config.randomness = dict(seed=1)
    runner = Runner.from_cfg(config)
    recorder = LossRecorder()
    runner.register_hook(recorder)
    runner.train()
    (losses,) = recorder.logged
    assert all(math.isfinite(value) for value in losses.values()), losses
    names = [term.name for term in distill_hook_of(runner).terms]
    # The coarsest level of these small images is a single cell, which leaves some nothing to say.
    assert names and all(losses[f"distill_{name}"] >= 0 for name in names)
    assert sum(losses[f"distill_{name}"] > 0 for name in names) >= len(names) - 2
    assert losses["loss"] == pytest.approx(
        sum(v for k, v in losses.items() if k.startswith("loss_")), rel=1e-5
    )
