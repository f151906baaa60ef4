"""The shipped detection configs, made small enough for one step on one core."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmdet.datasets import CocoDataset
from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

import mmkd  # noqa: F401  (puts in the stand-in that mmdet needs)

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs/detection"
_FOUND = sorted(p for p in CONFIGS.glob("*/*.py") if p.parent.name != "_base_")
METHODS = [path for path in _FOUND if path.parent.name == "methods"]
SHIPPED = [path for path in _FOUND if path not in METHODS]
HEIGHT, WIDTH = 96, 128


@cache
def _parsed(path: Path) -> Config:
    # Finding MMDetection's own configs takes a second.
    return Config.fromfile(path)


def read(path: Path) -> Config:
    """A config of one's own to change."""
    return copy.deepcopy(_parsed(path))


def build(model: dict[str, Any], scope: str = "mmdet") -> nn.Module:
    """A model or a part of one."""
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(model)


def scope_of(config: str) -> str:
    """Where the names of a teacher's config live."""
    return "mmpretrain" if config.startswith("mmpretrain::") else "mmdet"


def backbone_outputs(backbone: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Channels and strides of every output, from a forward pass that computes nothing."""
    side = 128
    with torch.device("meta"):
        outputs = build({**backbone, "init_cfg": None})(torch.zeros(2, 3, side, side))
    return [each.shape[1] for each in outputs], [side // each.shape[2] for each in outputs]


def is_distillation(config: Config) -> bool:
    return any(hook["type"] == "mmkd.DistillHook" for hook in config.get("custom_hooks", []))


def distill_settings(config: Config) -> ConfigDict:
    """The DistillHook of a config."""
    (hook,) = (hook for hook in config.custom_hooks if hook["type"] == "mmkd.DistillHook")
    return hook


def shrink(model: ConfigDict) -> None:
    """Narrows a full-size model; the others are small as they are."""
    if model.backbone.type == "VisionTransformer":
        arch = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
        model.backbone.update(arch=arch, img_size=56)
        return
    if not model.backbone.get("init_cfg"):
        return
    model.backbone.init_cfg = None
    if model.backbone.type in ("ResNet", "ResNeXt"):
        for key in ("groups", "base_width"):
            model.backbone.pop(key, None)
        model.backbone.update(type="ResNet", depth=18, base_channels=8, stem_channels=8)
    elif model.backbone.type == "CSPNeXt":
        model.backbone.update(deepen_factor=0.167, widen_factor=0.125)
    else:
        model.backbone.widen_factor = 0.25
    # Group norm divides by 32, and a group needs two values on the coarsest level.
    width = 64 if "bbox_head" in model else 8
    model.neck.update(in_channels=backbone_outputs(model.backbone)[0], out_channels=width)
    for head in ("rpn_head", "bbox_head"):
        if head in model:
            model[head].update(in_channels=width, feat_channels=width)
    if "roi_head" in model:
        model.roi_head.bbox_roi_extractor.out_channels = width
        model.roi_head.bbox_head.update(in_channels=width, fc_out_channels=16)


def write_tiny_set(folder: Path, classes: tuple[str, ...]) -> Path:
    """Two pictures of coloured rectangles with COCO annotations; returns the annotations."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for image_id in (1, 2):
        picture = rng.integers(0, 80, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        for x, y, w, h in ((8, 8, 24, 24), (60, 16, 40, 44), (30, 56, 20, 28)):
            picture[y : y + h, x : x + w] = rng.integers(120, 256, 3)
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=1 + len(annotations) % len(classes),
                    bbox=[x, y, w, h],
                    area=w * h,
                    iscrowd=0,
                )
            )
        cv2.imwrite(str(folder / f"{image_id}.png"), picture)
        images.append(dict(id=image_id, file_name=f"{image_id}.png", width=WIDTH, height=HEIGHT))
    categories = [dict(id=i, name=name) for i, name in enumerate(classes, start=1)]
    file = folder / "annotations.json"
    file.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return file


def one_step(config: Config, folder: Path, name: str) -> None:
    """Turns a config into one iteration of two tiny pictures, with nothing else changed."""
    shrink(config.model)
    dataset = config.train_dataloader.dataset
    classes = dataset.get("metainfo", CocoDataset.METAINFO)["classes"]
    annotations = write_tiny_set(folder, tuple(classes))
    dataset.update(data_root=None, ann_file=str(annotations), data_prefix=dict(img=str(folder)))
    if any("Cached" in step.type for step in dataset.pipeline):
        # Mosaic and mixup of hundreds of images.
        kept = ("LoadImageFromFile", "LoadAnnotations", "PackDetInputs")
        dataset.pipeline = [step for step in dataset.pipeline if step.type in kept]
        dataset.pipeline.insert(
            2, ConfigDict(type="Resize", scale=(WIDTH, HEIGHT), keep_ratio=True)
        )
    for step in dataset.pipeline:
        if "scale" in step:
            step.scale = (WIDTH, HEIGHT)
        if "scales" in step:
            step.scales = [(WIDTH, HEIGHT), (WIDTH - 32, HEIGHT - 32)]
    config.train_dataloader.update(batch_size=2, num_workers=0, persistent_workers=False)
    length = "max_iters" if "max_iters" in config.train_cfg else "max_epochs"
    config.train_cfg[length] = 1
    for split in ("val", "test"):
        config.update({f"{split}_{part}": None for part in ("cfg", "dataloader", "evaluator")})
    config.update(
        log_level="WARNING",
        experiment_name=name,
        work_dir=str(folder / "work_dir"),
        launcher="none",
    )
    config.visualizer.name = name


def write_shrunk_teacher(config: Config, folder: Path) -> None:
    """Gives a distillation config a small teacher of its own kind, with seeded weights."""
    teacher = distill_settings(config).teacher
    theirs = get_config(teacher.config) if "::" in teacher.config else read(teacher.config)
    scope = scope_of(teacher.config)
    small = Config(dict(model=theirs.model, default_scope=scope))
    shrink(small.model)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(small.model, scope)
        model.init_weights()
    teacher.update(config=str(folder / "teacher.py"), checkpoint=str(folder / "teacher.pth"))
    small.dump(teacher.config)
    torch.save(model.state_dict(), teacher.checkpoint)
