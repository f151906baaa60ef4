"""The shipped classification configs, made small enough for one step on one core."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.config import utils as config_utils
from mmengine.dataset import BaseDataset
from mmengine.hub import get_config
from mmengine.registry import DATASETS, MODELS, DefaultScope
from torch import Tensor, nn

from helpers.small_scale import ROOT, is_distillation, read

CONFIGS = ROOT / "configs/classification"
SHIPPED = sorted(p for folder in ("cifar100", "imagenet") for p in (CONFIGS / folder).glob("*.py"))
SIDE = 32
IMAGES = 4  # two would leave batch-normalised features at 1 and -1

# Every "mmpretrain::..." reads all of MMPretrain's metafiles, for a third of a second.
config_utils.load = cache(config_utils.load)


@DATASETS.register_module()
class FourImages(BaseDataset):
    """Of two classes, as arrays and as files."""

    def __init__(self, folder: str, pipeline: list[Any]) -> None:
        self._folder = Path(folder)
        # Serializing collects garbage first, which takes longer than the step.
        super().__init__(pipeline=pipeline, serialize_data=False)

    def load_data_list(self) -> list[dict[str, Any]]:
        rng = np.random.default_rng(0)
        items = []
        for i in range(IMAGES):
            image = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            path = str(self._folder / f"{i}.png")
            cv2.imwrite(path, image)
            items.append(dict(img=image, img_path=path, gt_label=i % 2))
        return items


def build(model: dict[str, Any]) -> nn.Module:
    """A model or a part of one, of MMPretrain's."""
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        return MODELS.build(model)


def build_without_numbers(model: dict[str, Any]) -> nn.Module:
    """A model of full size on the meta device, for evaluation."""
    linspace = partial(torch.linspace, device="cpu")  # drop path's rates, read as numbers
    with torch.device("meta"), patch.object(torch, "linspace", linspace):
        return build(model).eval()


def hook_of(config: Config, kind: str) -> ConfigDict | None:
    """The hook of a type, if a config has one."""
    found = [hook for hook in config.get("custom_hooks", []) if hook["type"] == f"mmkd.{kind}"]
    return found[0] if found else None


def teacher_config(config: Config) -> Config:
    """The teacher's own config, to change."""
    return read_teacher(hook_of(config, "DistillHook").teacher)


def read_teacher(settings: Mapping[str, Any]) -> Config:
    """The config that a ``teacher`` setting names, to change."""
    path = settings["config"]
    return copy.deepcopy(_external(path)) if "::" in path else read(Path(path))


@cache
def _external(path: str) -> Config:
    return get_config(path)


def last_output(backbone: dict[str, Any], side: int = SIDE) -> Tensor:
    """What a backbone ends in, for two blank images."""
    network = build(backbone)
    network.eval()  # some return nothing from it
    found = network(torch.zeros(2, 3, side, side))[-1]
    return found[0] if isinstance(found, tuple | list) else found


# Reduced networks -----------------------------------------------------------------------------

_TOKENS = dict(
    img_size=SIDE,
    arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=32),
    drop_path_rate=0.0,
)
_SMALL: dict[str, dict[str, Any]] = {
    "mmkd.CIFARResNet": dict(depth=8, widths=(8, 8, 16, 16)),
    "mmkd.WideResNet": dict(depth=10, widen_factor=1),
    "mmkd.CIFARMobileNetV2": dict(width=0.25),
    "ResNet": dict(depth=18, base_channels=8, stem_channels=8),
    "DenseNet": dict(arch=dict(growth_rate=8, depths=[1, 1, 1, 1], init_channels=16)),
    "MobileNetV2": dict(widen_factor=0.25),
    "MobileNetV3": dict(arch="small_050"),
    "VisionTransformer": _TOKENS,
    "DistilledVisionTransformer": _TOKENS,
    "mmkd.CivT": _TOKENS,
    "mmkd.RedNet": dict(depth=26, base_channels=16, stem_channels=32),
    "ConvNeXt": dict(arch=dict(depths=[1, 1, 1, 1], channels=[8, 8, 16, 32])),
}
# A network of the same outputs, where the family itself knows no small one.
_STANDS_FOR = {
    "mmkd.CIFARBottleneckResNet": "mmkd.CIFARResNet",
    "mmkd.CIFARVGG": "mmkd.CIFARResNet",
}
_SMALL_TIMM: dict[str, dict[str, Any]] = {
    "regnety_160": dict(w0=16, wa=24.0, wm=2.0, depth=6, group_size=8),
    "mobilenetv1_100": {},
    "regnety_040": dict(w0=16, wa=24.0, wm=2.0, depth=6, group_size=8),
    "resnet26": dict(layers=(1, 1, 1, 1), channels=(4, 8, 8, 8), stem_width=4),
}


def shrink(model: ConfigDict) -> int:
    """Narrows a classifier; returns the width of the feature that it classifies."""
    backbone = model.backbone
    if backbone.type in _STANDS_FOR:
        model.backbone = backbone = ConfigDict(type=_STANDS_FOR[backbone.type])
    if backbone.type == "TIMMBackbone":
        backbone.update(_SMALL_TIMM[backbone.model_name])
    backbone.update(_SMALL.get(backbone.type, {}))
    width = last_output(backbone).shape[1]
    model.head.in_channels = width
    return width


def write_shrunk_teacher(config: Config, folder: Path) -> int:
    """Gives a distillation config a small teacher of its own kind, with seeded weights; returns the
    width of its feature."""
    return shrink_teacher(hook_of(config, "DistillHook").teacher, folder)


def shrink_teacher(settings: ConfigDict, folder: Path, name: str = "teacher") -> int:
    """Does so for one ``teacher`` setting, in files of a name."""
    theirs = read_teacher(settings)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        width = shrink(theirs.model)
        model = build(theirs.model)
        model.init_weights()
    file = str(folder / f"{name}.pth")
    torch.save(model.state_dict(), file)
    settings.update(config=str(folder / f"{name}.py"), checkpoint=file)
    kept = ("model", "data_preprocessor", "default_scope")
    Config({key: theirs[key] for key in kept}).dump(settings.config)
    return width


def one_step(config: Config, folder: Path, name: str) -> None:
    """Turns a config into steps of four tiny pictures, with little else changed. Weight decay is
    off, so that a weight moves only where a gradient reaches it."""
    width = shrink(config.model)
    if is_distillation(config):
        teacher = hook_of(config, "DistillHook").teacher
        if "config" in teacher:
            width = write_shrunk_teacher(config, folder)
        for name, each in teacher.items():
            if isinstance(each, ConfigDict):
                shrink_teacher(each, folder, name)
        hook_of(config, "DistillHook").probe_size = SIDE
    if "teacher_channels" in config.model.head:
        config.model.head.teacher_channels = width
    if (alignment := hook_of(config, "ClassifierAlignmentHook")) is not None:
        if not is_distillation(config):
            torch.save(build(config.model).state_dict(), folder / "teacher.pth")
        alignment.checkpoint = str(folder / "teacher.pth")
    loader = config.train_dataloader
    loader.update(batch_size=IMAGES, num_workers=0, persistent_workers=False)
    loader.dataset = _four_images(loader.dataset, folder)
    config.optim_wrapper.optimizer.weight_decay = 0.0
    for split in ("val", "test"):
        config.update({f"{split}_{part}": None for part in ("cfg", "dataloader", "evaluator")})
    config.default_hooks.checkpoint = None
    config.update(
        log_level="WARNING",
        experiment_name=name,
        work_dir=str(folder / "work_dir"),
        launcher="none",
        randomness=dict(seed=0),
    )
    config.visualizer.name = name


def _four_images(dataset: ConfigDict, folder: Path) -> ConfigDict:
    if dataset.type == "mmkd.SeededSubset":
        # One image of each class would be left of a fifth.
        dataset.dataset = _four_images(dataset.dataset, folder)
        dataset.fraction = 1.0
        return dataset
    for step in dataset.pipeline:
        if step.get("scale") == 224:
            step.scale = SIDE
    return ConfigDict(type="mmengine.FourImages", folder=str(folder), pipeline=dataset.pipeline)
