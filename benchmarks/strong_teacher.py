"""A strong real teacher: He et al.'s ResNet-56, whose published weights are tested first."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from cifar_study import read_config
from mmengine.runner import Runner

from mmkd.checkpoint import read_weights

__all__ = ["STRONG", "Teacher", "strong_teacher"]


@dataclass(frozen=True)
class Teacher:
    """Whom students learn from.

    Args:
        name: In tables, and of its runs' folder.
        config: By name.
        width: Of its last map.
        checkpoint: Its weights, where it has any.
        accuracy: On the test set, in percent, where it was tested.
    """

    name: str
    config: str
    width: int
    checkpoint: str = ""
    accuracy: float = math.nan


STRONG = Teacher("strong", "classification/cifar10_10k/resnet56_cifar10-10k.py", 64)


def strong_teacher(weights: Path, data: Path, folder: Path) -> Teacher:
    """The published network as a classifier of MMPretrain's.

    Args:
        weights: As published.
        data: On whose test images it is tested.
        folder: For the converted checkpoint and the test's logs.
    """
    file = folder / "resnet56.pth"
    file.parent.mkdir(parents=True, exist_ok=True)
    found = read_weights(weights).weights
    torch.save({_own_name(key): value for key, value in found.items()}, file)
    config = read_config(STRONG.config, 0, data, folder)
    config.load_from = str(file)
    config.test_cfg = dict(type="TestLoop")
    scores = Runner.from_cfg(config).test()
    return replace(STRONG, checkpoint=str(file), accuracy=float(scores["accuracy/top1"]))


def _own_name(key: str) -> str:
    """Of a weight of akamaster/pytorch_resnet_cifar10, in MMPretrain's classifier."""
    if key.startswith("linear."):
        return key.replace("linear.", "head.fc.")
    return "backbone." + re.sub(r"^layer(\d)", lambda m: f"stages.{int(m[1]) - 1}", key)
