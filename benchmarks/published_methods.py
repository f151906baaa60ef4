"""The methods of configs/classification/methods, apart from the networks that they are shown on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmkd.configs import config_file

__all__ = ["HINT", "IN_TWO_TRAININGS", "KD_AFTER_HINT", "PublishedMethod", "published_methods"]

# FitNet's stages, and all that is one of two trainings; FSP's second has the task alone.
HINT, KD_AFTER_HINT = "fitnet-hint", "fitnet-kd"
IN_TWO_TRAININGS = (HINT, KD_AFTER_HINT, "fsp-first")


@dataclass(frozen=True)
class PublishedMethod:
    """What a method's config adds to a student.

    Args:
        terms: Of the hook.
        head: Changes to the student's.
        preprocessor: Type of the student's, where it is not the usual one.
        teacher: Of a student who teaches itself; None for another network.
        changes: To the rest of the config.
    """

    terms: Mapping[str, Any]
    head: Mapping[str, Any]
    preprocessor: str | None
    teacher: Mapping[str, Any] | None
    changes: Mapping[str, Any]


@cache
def published_methods(student: str = "resnet8x4") -> Mapping[str, PublishedMethod]:
    """By name, as they are published for a student; of one in two trainings each stage."""
    folder = Path(config_file("classification/README.md")).parent / "methods"
    return {
        file.stem.split("_")[1].partition("-")[2]: _read(Config.fromfile(file))
        for file in sorted(folder.glob(f"{student}_*.py"))
    }


def _read(config: Config) -> PublishedMethod:
    [hook] = config.custom_hooks
    head, of_head = config.model.head, {}
    if head.loss.loss_weight != 1.0:
        of_head["loss"] = dict(loss_weight=head.loss.loss_weight)
    if head.type != "LinearClsHead":
        of_head["type"] = head.type
    wrapper = {k: v for k, v in config.optim_wrapper.to_dict().items() if k == "paramwise_cfg"}
    return PublishedMethod(
        hook.terms.to_dict(),
        of_head,
        config.data_preprocessor.get("type"),
        None if "config" in hook.teacher else hook.teacher.to_dict(),
        dict(optim_wrapper=wrapper) if wrapper else {},
    )
