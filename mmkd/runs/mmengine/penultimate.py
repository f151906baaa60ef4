"""Penultimate features of a checkpoint that MMEngine's Runner wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmkd.box_features import in_boxes
from mmkd.checkpoint import CheckpointWeights, load_weights, read_weights
from mmkd.custom_imports import import_custom
from mmkd.engine.evenly import evenly
from mmkd.engine.mmengine.annotated_boxes import boxes_in_batch
from mmkd.engine.random_state import preserved_random_state
from mmkd.errors import InputError, first_few
from mmkd.runs.mmengine.validation_images import loader_here
from mmkd.runs.object_features import ObjectFeatures, chunks
from mmkd.targets import Boxes
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
    import_custom(config.get("custom_imports"))
    loader = config.get("val_dataloader") or config.get("test_dataloader")
    if "model" not in config or loader is None:
        raise InputError(f"{source.file}: expected a config with model and val_dataloader")
    model = _built(config, source)
    built = loader_here(loader)
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
            labels += [_label(source, sample) for sample in samples]
        else:
            infos = [dataset.get_data_info(index) for index in chunk]
            boxes = [_boxes(source, *pair) for pair in zip(infos, samples, strict=True)]
            inputs = batch["inputs"]
            maps = model.extract_feat(inputs)
            corners = [each.corners for each in boxes]
            features.append(in_boxes(maps, corners, tuple(inputs.shape[2:])))
            labels += [label for each in boxes for label in each.classes.tolist()]
    return ObjectFeatures(torch.cat(features), torch.tensor(labels), _classes(dataset, labels))


def _built(config: Config, source: CheckpointWeights) -> Any:
    """The model with its weights, ready to be run."""
    # Where it stands beside the model, as in MMPretrain's configs, the Runner puts it in.
    if "data_preprocessor" in config:
        config.model.setdefault("data_preprocessor", config.data_preprocessor)
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
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _classes(dataset: Any, labels: list[int]) -> tuple[str, ...]:
    """Numbers where they have no names."""
    about = dataset.metainfo
    # Of sets that were joined, each its own.
    about = about[0] if isinstance(about, list) else about
    names = tuple(map(str, about.get("classes") or ()))
    count = max(labels, default=-1) + 1
    return names if len(names) >= count else tuple(map(str, range(count)))


def _label(source: CheckpointWeights, sample: Any) -> int:
    if sample.gt_label.numel() != 1:
        raise InputError(
            f"{source.file}: expected one class an image, found {sample.gt_label.numel()}"
        )
    return int(sample.gt_label)


def _boxes(source: CheckpointWeights, info: Mapping[str, Any], sample: Any) -> Boxes:
    if "instances" not in info:
        raise InputError(
            f"{source.file}: expected validation images with boxes, or with a class each"
        )
    try:
        return boxes_in_batch(info["instances"], sample.metainfo)
    except ValueError as error:
        raise InputError(f"{source.file}: {error}") from error
