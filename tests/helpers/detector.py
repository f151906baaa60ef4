"""Runs of the digits Faster R-CNN on a tiny set."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope

import mmkd  # noqa: F401  (puts in the stand-in that mmdet needs)

CONFIGS = Path(__file__).parents[2] / "configs/detection/digits"
TEACHER_CONFIG = CONFIGS / "faster-rcnn_r18-w16_digits.py"
STUDENT_CONFIG = CONFIGS / "faster-rcnn_r18-w8_digits.py"

_names = (f"detector{i}" for i in itertools.count())


def detector_config(digits: Path, work_dir: Path, **overrides: Any) -> Config:
    """The student on ``digits`` for 2 epochs of 3 iterations, a validation after each."""
    config = Config.fromfile(STUDENT_CONFIG)
    name = next(_names)
    for pipeline in (
        config.train_dataloader.dataset.pipeline,
        config.val_dataloader.dataset.pipeline,
    ):
        next(step for step in pipeline if step.type == "Resize").scale = (64, 64)
    for loader in (config.train_dataloader, config.val_dataloader):
        loader.batch_size = 4
        loader.dataset.data_root = f"{digits}/"
    config.merge_from_dict(
        {
            "train_cfg": dict(max_epochs=2, val_interval=1),
            "val_evaluator.ann_file": str(digits / "annotations/val.json"),
            "default_hooks.checkpoint.interval": 1,
            "default_hooks.logger.interval": 1,
            "log_level": "WARNING",
            "experiment_name": name,
            "visualizer.name": name,
            "work_dir": str(work_dir / name),
        }
    )
    config.test_dataloader, config.test_evaluator = config.val_dataloader, config.val_evaluator
    config.merge_from_dict(overrides)
    return config


def write_detector_teacher(folder: Path) -> dict[str, str]:
    """The R18 teacher with seeded weights; the ``teacher`` setting that names it."""
    from mmengine.registry import MODELS

    config = Config.fromfile(TEACHER_CONFIG)
    with torch.random.fork_rng(), DefaultScope.overwrite_default_scope("mmdet"):
        init_default_scope("mmdet")
        torch.manual_seed(11)
        model = MODELS.build(config.model)
        model.init_weights()
    file = folder / "r18.pth"
    torch.save(dict(state_dict=model.state_dict()), file)
    return dict(config=str(TEACHER_CONFIG), checkpoint=str(file))
