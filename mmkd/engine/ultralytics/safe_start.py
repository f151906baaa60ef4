"""Trainings that start from files which are read without being executed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import LOCAL_RANK, LOGGER, RANK
from ultralytics.utils.torch_utils import torch_distributed_zero_first

from mmkd.checkpoint import CheckpointWeights, load_weights, read_weights
from mmkd.checkpoint.downloads import is_address
from mmkd.engine.ultralytics.architecture import head_of, is_original
from mmkd.engine.ultralytics.checkpoint_files import by_another_name, local_file, readable
from mmkd.engine.ultralytics.safe_loading import is_safe
from mmkd.errors import InputError, naming

__all__ = ["SafeStart", "check_start"]


class SafeStart(DetectionTrainer):
    """Ultralytics' trainer, whose ``pretrained`` also takes checkpoints of the YOLOv5 repository:
    all of their weights but the head's fit a model of Ultralytics' definition."""

    def setup_model(self) -> Any:
        """Builds the student as ever, and loads ``pretrained`` into it.

        Raises:
            InputError: That file cannot be read without executing it, or nothing of it fits.
            FileNotFoundError: It is missing.
        """
        given = self.args.pretrained
        is_begun = isinstance(self.model, nn.Module) or self.resume
        if is_begun or not isinstance(given, str | Path):
            checkpoint = super().setup_model()
        else:
            with naming("pretrained"):
                with torch_distributed_zero_first(LOCAL_RANK):
                    file = local_file(str(given))
                self.args.pretrained = True
                try:
                    checkpoint = super().setup_model()
                finally:
                    self.args.pretrained = given
                _load(self.model, file)
        # The user's own layers, which are in memory: the run's own files name them too.
        torch.serialization.add_safe_globals([type(each) for each in self.model.modules()])
        return checkpoint


def check_start(source: str, model: YOLO) -> None:
    """Raises where it is plain to see that a training cannot start from a file.

    Args:
        source: ``pretrained`` or ``resume``; what Ultralytics downloads is not looked at.
        model: Of the training.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is refused, or is of the YOLOv5 repository where the model has weights.
    """
    if is_address(source) or (not Path(source).exists() and "/" not in source):
        return
    original = _original(local_file(source))
    if original is not None and model.ckpt:
        raise InputError(
            f"{source} is a checkpoint of the YOLOv5 repository, and the model has weights: "
            "give model= a definition, such as yolov5n.yaml"
        )
    if original is None and is_safe():
        read_weights(source)


def _load(model: Any, file: Path) -> None:
    source = _original(file)
    if source is None:
        with readable(file), by_another_name(file) as link:
            weights, _ = load_checkpoint(link)
        model.load(weights)
        return
    assert source.network is not None
    own = model.state_dict()
    # Any counter of batches fits any other.
    if not any(v.dim() and k in own and v.shape == own[k].shape for k, v in source.weights.items()):
        raise InputError(f"{file}: none of its weights fits the model in name and shape")
    report = load_weights(model, source)
    if RANK in (-1, 0):
        LOGGER.info(
            f"pretrained: {report}; its head {head_of(source.network)} works with anchors and has "
            "no place here"
        )


def _original(file: Path) -> CheckpointWeights | None:
    """The file's weights if it is of the YOLOv5 repository."""
    try:
        source = read_weights(file)
    except ValueError:
        return None
    return source if source.network is not None and is_original(source.network) else None
