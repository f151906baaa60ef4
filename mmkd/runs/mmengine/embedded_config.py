"""The config that a checkpoint carries: whoever wrote the file wrote it, so it is not trusted."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader
from mmengine.utils import import_modules_from_strings

from mmkd.checkpoint import CheckpointWeights
from mmkd.custom_imports import imported_modules
from mmkd.errors import InputError, first_few
from mmkd.extras import extra
from mmkd.work_dirs.dumped_config import read_dumped_config

with extra("mmdet", "a checkpoint of MMDetection's"):
    from mmdet.registry import MODELS, TASK_UTILS, TRANSFORMS

__all__ = ["closed", "read_embedded_config"]

_SCOPES = ("mmengine", "mmcv", "mmdet", "mmpretrain", "mmkd")
_IMPORTS = re.compile(r"mmkd|(mmdet|mmpretrain)(\.models(\.backbones)?|\.datasets(\.transforms)?)?")

# Where classes live that compute and do nothing else. Left out is what reads files, asks the
# network or runs configs: teachers of MMDetection's own distillation, language models, trackers,
# timm's and Detectron2's wrappers.
_DETECTORS = (
    "atss autoassign boxinst cascade_rcnn centernet condinst conditional_detr cornernet crowddet "
    "dab_detr ddod ddq_detr deformable_detr detr dino fast_rcnn faster_rcnn fcos fovea fsaf gfl "
    "grid_rcnn htc mask2former mask_rcnn mask_scoring_rcnn maskformer nasfcos paa panoptic_fpn "
    "point_rend queryinst reppoints_detector retinanet rpn rtmdet scnet single_stage solo solov2 "
    "sparse_rcnn tood trident_faster_rcnn two_stage vfnet yolact yolo yolof yolox"
)
_PARTS = (
    "backbones data_preprocessors dense_heads layers losses necks roi_heads seg_heads "
    "task_modules.assigners task_modules.coders task_modules.prior_generators "
    "task_modules.samplers"
)
_ROOMS = (
    "torch.nn.modules.",
    "mmengine.model.base_model.",
    "mmcv.cnn.bricks.",
    "mmcv.ops.",
    "mmkd.models.",
    "mmkd.ops.",
    *(f"mmdet.models.detectors.{name}." for name in _DETECTORS.split()),
    *(f"mmdet.models.{name}." for name in _PARTS.split()),
    "mmpretrain.models.backbones.",
    "mmpretrain.models.utils.norm.",
)
_NOT_THERE = ("mmdet.models.dense_heads.atss_vlfusion_head.", "mmpretrain.models.backbones.timm_")
# Functions and layers that detectors look up by themselves.
_OPERATORS = ("nms", "soft_nms", "RoIAlign", "RoIPool")
_STEPS = (
    "LoadImageFromFile LoadAnnotations Resize FixScaleResize FixShapeResize Pad CenterCrop "
    "Normalize RandomFlip ImageToTensor ToTensor PackDetInputs"
)
# Of settings by which a part would read a file or an address of its own.
_READING = ("init_cfg", "backend_args", "file_client_args")


def read_embedded_config(source: CheckpointWeights) -> Config:
    """Reads it as plain values, and checks that what would be built of it only computes.

    What a user imported by ``--import`` is trusted.

    Raises:
        InputError: There is none, it cannot be read, or it names something else.
    """
    text = source.meta.get("cfg")
    if not isinstance(text, str):
        raise InputError(f"{source.file} does not hold its config: give the config's file too")
    try:
        settings = _without_reading(read_dumped_config(text))
    except ValueError as error:
        raise InputError(
            f"the config in {source.file} cannot be read ({error}): give the config's file too"
        ) from error
    imports = _imports(settings)
    _refuse(source.file, [each for each in imports if not _may_be_imported(each)])
    _refuse(source.file, _strange_names(settings))
    import_modules_from_strings(imports)
    with DefaultScope.overwrite_default_scope(settings.get("default_scope") or "mmdet"):
        _refuse(source.file, _strange_parts(settings))
    return Config(settings)


def _refuse(checkpoint: Path, names: list[Any]) -> None:
    if names:
        raise InputError(
            f"the config in {checkpoint} names {first_few([str(each) for each in names])}, which "
            "could execute anything, or read it: give the config's file too, if you trust it"
        )


def _without_reading(settings: Any) -> Any:
    """All weights come out of the checkpoint, and all images from the given folder."""
    if isinstance(settings, Mapping):
        kept = {key: value for key, value in settings.items() if key not in _READING}
        return {key: _without_reading(value) for key, value in kept.items()}
    if isinstance(settings, list | tuple):
        return type(settings)(map(_without_reading, settings))
    return settings


def _imports(settings: Mapping[str, Any]) -> list[Any]:
    custom = settings.get("custom_imports")
    found = custom.get("imports") if isinstance(custom, Mapping) else custom
    return [found] if isinstance(found, str) else list(found or [])


def _may_be_imported(name: Any) -> bool:
    return name in imported_modules() or bool(_IMPORTS.fullmatch(str(name)))


def _built(settings: Mapping[str, Any]) -> list[Any]:
    return [settings.get(key) for key in ("model", "test_dataloader", "val_dataloader")]


def _strange_names(settings: Mapping[str, Any]) -> list[Any]:
    """Names that no registry knows: MMEngine imports whatever a dotted one says."""
    scopes = [settings.get("default_scope"), *_values(_built(settings), "_scope_")]
    types = _values(_built(settings), "type")
    return [each for each in scopes if each is not None and each not in _SCOPES] + [
        each for each in types if not _is_registered_name(each)
    ]


def _is_registered_name(name: Any) -> bool:
    scope, dot, rest = str(name).rpartition(".")
    return isinstance(name, str) and (not dot or scope in _SCOPES) and rest.isidentifier()


def _strange_parts(settings: Mapping[str, Any]) -> list[str]:
    strange = [each for each in _values(settings.get("model"), "type") if not _only_computes(each)]
    pipelines = [pipe for each in _built(settings)[1:] for pipe in _values(each, "pipeline")]
    return strange + [each for each in _values(pipelines, "type") if not _is_step(each)]


def _only_computes(name: str) -> bool:
    found = MODELS.get(name) or TASK_UTILS.get(name)
    if found is None:
        return name in _OPERATORS
    module = f"{found.__module__}."
    is_known = isinstance(found, type) and module.startswith(_ROOMS)
    return (is_known and not module.startswith(_NOT_THERE)) or _is_users(found)


def _is_step(name: str) -> bool:
    found = TRANSFORMS.get(name)
    if found is None:
        return False
    is_known = found.__module__.startswith(("mmcv.transforms.", "mmdet.datasets.transforms."))
    return (is_known and found.__name__ in _STEPS.split()) or _is_users(found)


def _is_users(found: Any) -> bool:
    names = [Path(each).stem if each.endswith(".py") else each for each in imported_modules()]
    return any(f"{found.__module__}.".startswith(f"{name}.") for name in names)


def _values(settings: Any, key: str) -> Iterator[Any]:
    """Everything that nested settings hold under a key."""
    if isinstance(settings, Mapping):
        if key in settings:
            yield settings[key]
        settings = settings.values()
    elif not isinstance(settings, list | tuple):
        return
    for each in settings:
        yield from _values(each, key)


@contextmanager
def closed(checkpoint: Path) -> Iterator[None]:
    """No config, no checkpoint and no address is opened in here, by whichever class.

    Args:
        checkpoint: Whose config is being built, for errors.
    """

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise InputError(
            f"the config in {checkpoint} builds a model that reads another file or an address: "
            "give the config's file too, if you trust it"
        )

    with ExitStack() as replaced:
        for owner, name in (
            (Config, "fromfile"),
            (CheckpointLoader, "load_checkpoint"),
            (torch, "load"),
            (socket, "getaddrinfo"),
            (socket.socket, "connect"),
        ):
            replaced.enter_context(patch.object(owner, name, refuse))
        yield
