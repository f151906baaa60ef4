"""What a trained network holds of each object just before it names its class."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from mmkd.errors import InputError
from mmkd.extras import extra
from mmkd.runs.library_output import output_to
from mmkd.runs.object_features import ObjectFeatures
from mmkd.work_dirs import WorkDir

__all__ = ["penultimate_features"]


def penultimate_features(run: WorkDir, images: int) -> ObjectFeatures:
    """Runs the last checkpoint of a training on its own validation images.

    The run's config is taken at its word: it names the classes that are built, and the data.
    Nothing that is pickled in the checkpoint is executed.

    Args:
        run: Of MMEngine's Runner, with MMDetection's or MMPretrain's models, or of Ultralytics.
        images: How many, evenly picked; fewer where there are no more.

    Raises:
        InputError: No checkpoint, one that does not fit the run's config or has diverged, another
            kind of model, images without boxes or a single class each, or data that are not where
            the config says.
    """
    if run.checkpoint is None:
        raise InputError(f"{run.path}: expected a checkpoint, found none to look at")
    with TemporaryDirectory() as folder, output_to(Path(folder) / "output.log"), torch.no_grad():
        found = _features(run, run.checkpoint, images)
    if len(found.features) < 2:
        raise InputError(
            f"{run.path}: its {images} validation images show {len(found.features)} objects, "
            "expected some to compare: give more"
        )
    if not found.features.isfinite().all():
        raise InputError(
            f"{run.path}: {run.checkpoint.name} returns values that are not finite, its training "
            "has diverged"
        )
    return found


def _features(run: WorkDir, checkpoint: Path, images: int) -> ObjectFeatures:
    if run.framework == "ultralytics":
        with extra("yolo", "a run of Ultralytics'"):
            from mmkd.runs.ultralytics.penultimate import features_of
        return features_of(checkpoint, run.path / "args.yaml", images)
    from mmkd.runs.mmengine.penultimate import features_of_config

    return features_of_config(checkpoint, images)
