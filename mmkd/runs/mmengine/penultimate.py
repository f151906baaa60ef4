"""Penultimate features of a checkpoint that MMEngine's Runner wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings
from torch import Tensor

from mmkd.checkpoint import CheckpointWeights, load_weights, read_weights
from mmkd.engine.evenly import evenly
from mmkd.engine.random_state import preserved_random_state
from mmkd.errors import InputError, first_few
from mmkd.runs.object_features import ObjectFeatures, chunks, in_boxes
from mmkd.work_dirs.dumped_config import read_dumped_config

__all__ = ["features_of_config"]


def features_of_config(checkpoint: Path, images: int) -> ObjectFeatures:
    """See :func:`mmkd.runs.penultimate.penultimate_features`.

    Args:
        checkpoint: It holds its config, as MMEngine stores it.
        images: How many.

    Raises:
        InputError: See there.
    """
    source = _read(checkpoint)
    try:
        config = Config(read_dumped_config(str(source.meta.get("cfg") or "")))
    except ValueError as error:
        raise InputError(f"{checkpoint} does not hold a config that can be read") from error
    # MMEngine sets its scope, and what seeds it needs, for good.
    scope = config.get("default_scope") or "mmengine"
    with DefaultScope.overwrite_default_scope(scope), preserved_random_state():
        try:
            return _run(config, source, images)
        except InputError:
            raise
        except Exception as error:  # Data that are gone, and configs of other versions.
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(
                f"{checkpoint}: its config cannot be run on its validation images: {said}"
            ) from error


def _read(checkpoint: Path) -> CheckpointWeights:
    try:
        return read_weights(checkpoint)
    except ValueError as error:
        raise InputError(f"{checkpoint}: expected a checkpoint of MMEngine's: {error}") from error


def _run(config: Config, source: CheckpointWeights, images: int) -> ObjectFeatures:
    custom = config.get("custom_imports") or {}
    import_modules_from_strings(custom.get("imports") or [])
    loader = config.get("val_dataloader") or config.get("test_dataloader")
    if "model" not in config or loader is None:
        raise InputError(f"{source.file}: expected a config with model and val_dataloader")
    model = MODELS.build(config.model)
    if not hasattr(model, "extract_feat"):
        raise InputError(
            f"{source.file}: {type(model).__name__} is no model of MMDetection's or MMPretrain's"
        )
    report = load_weights(model, source)
    if report.missing or report.mismatched:
        raise InputError(
            f"{source.file} does not fit its own config: "
            f"{first_few([*report.missing, *report.mismatched])}"
        )
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    own = {k: v for k, v in loader.items() if k not in ("prefetch_factor", "timeout")}
    built = Runner.build_dataloader({**own, "num_workers": 0, "persistent_workers": False})
    dataset: Any = built.dataset
    features, labels = [], []
    for chunk in chunks(evenly(images, len(dataset))):
        data = built.collate_fn([dataset[index] for index in chunk])
        batch = model.data_preprocessor(data, False)
        samples = batch["data_samples"]
        if all("gt_label" in sample for sample in samples):
            found = model.extract_feat(batch["inputs"], stage="pre_logits")
            # Of several tokens, the one that classifies.
            found = found[0] if isinstance(found, tuple) else found
            features.append(found.flatten(1).float().cpu())
            labels += [int(sample.gt_label) for sample in samples]
        else:
            infos = [dataset.get_data_info(index) for index in chunk]
            boxes = [_boxes(*pair) for pair in zip(infos, samples, strict=True)]
            inputs = batch["inputs"]
            maps = model.extract_feat(inputs)
            features.append(in_boxes(maps, [own for own, _ in boxes], tuple(inputs.shape[2:])))
            labels += [label for _, names in boxes for label in names]
    classes = tuple(map(str, dataset.metainfo.get("classes") or ()))
    names = classes or tuple(map(str, range(max(labels, default=-1) + 1)))
    return ObjectFeatures(torch.cat(features), torch.tensor(labels), names)


def _boxes(info: Mapping[str, Any], sample: Any) -> tuple[Tensor, list[int]]:
    """In pixels of the resized image: a test's pipeline may leave them in those of the file."""
    shown = [each for each in info["instances"] if not each.get("ignore_flag")]
    corners = torch.tensor([each["bbox"] for each in shown], dtype=torch.float32).reshape(-1, 4)
    width, height = sample.metainfo.get("scale_factor", (1.0, 1.0))
    scale = corners.new_tensor([width, height, width, height])
    return corners * scale, [int(each["bbox_label"]) for each in shown]
