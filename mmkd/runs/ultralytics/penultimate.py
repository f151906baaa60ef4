"""Penultimate features of a checkpoint of Ultralytics'."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from ultralytics.cfg import get_cfg
from ultralytics.data.utils import check_det_dataset

from mmkd.box_features import in_boxes
from mmkd.engine.evenly import evenly
from mmkd.engine.ultralytics.checkpoint_files import open_model
from mmkd.engine.ultralytics.spread_images import plain_dataset, probe_of
from mmkd.engine.ultralytics.teacher import neck_outputs
from mmkd.errors import InputError
from mmkd.features import outputs_when_run
from mmkd.runs.object_features import ObjectFeatures, chunks
from mmkd.runs.ultralytics.detection import quiet

__all__ = ["features_of"]


def features_of(checkpoint: Path, arguments: Path, images: int) -> ObjectFeatures:
    """See :func:`mmkd.runs.penultimate.penultimate_features`.

    Args:
        checkpoint: ``.pt`` file.
        arguments: The run's ``args.yaml``.
        images: How many.

    Raises:
        InputError: See there.
    """
    with quiet():
        model = open_model(checkpoint)
        if model.task != "detect":
            raise InputError(f"{checkpoint}: expected a detector, found the task {model.task!r}")
        network = model.model.float()
        try:
            paths = neck_outputs(network)
        except ValueError as error:
            raise InputError(f"{checkpoint}: {error}") from error
        try:
            settings = get_cfg(str(arguments))
            data = check_det_dataset(settings.data, autodownload=False)
            dataset = plain_dataset(settings, data, "val")
        except Exception as error:  # Data that are gone, and arguments of other versions.
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(
                f"{arguments}: its validation images cannot be read: {said}"
            ) from error
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network.to(device).eval()
        features, labels = [], []
        for indices in chunks(evenly(images, len(dataset))):
            probe = probe_of(dataset, indices, network, device)
            maps = list(outputs_when_run(network, paths, partial(probe.run, probe.inputs)).values())
            boxes = probe.targets.boxes
            features.append(in_boxes(maps, [each.corners for each in boxes], probe.targets.size))
            labels += [each.classes.cpu() for each in boxes]
        names = tuple(str(name) for name in model.names.values())
    return ObjectFeatures(torch.cat(features), torch.cat(labels), names)
