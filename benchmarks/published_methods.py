"""The methods of configs/classification/methods, apart from the networks that they are shown on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmkd.configs import config_file

__all__ = ["PublishedMethod", "published_methods"]

# A method in two trainings.
_STAGES = ("fitnet-hint", "fitnet-kd")


@dataclass(frozen=True)
class PublishedMethod:
    """What a method's config adds to a student.

    Args:
        terms: Of the hook.
        head: Changes to the student's.
        preprocessor: Type of the student's, where it is not the usual one.
        teacher: Of a student who teaches itself; None for another network.
    """

    terms: Mapping[str, Any]
    head: Mapping[str, Any]
    preprocessor: str | None
    teacher: Mapping[str, Any] | None


def published_methods(student: str = "resnet8x4") -> dict[str, PublishedMethod]:
    """By name, as they are published for a student."""
    folder = Path(config_file("classification/README.md")).parent / "methods"
    found = {}
    for file in sorted(folder.glob(f"{student}_*.py")):
        name = file.stem.split("_")[1].partition("-")[2]
        if name not in _STAGES:
            found[name] = _read(Config.fromfile(file))
    return found


def _read(config: Config) -> PublishedMethod:
    [hook] = config.custom_hooks
    head, changes = config.model.head, {}
    if head.loss.loss_weight != 1.0:
        changes["loss"] = dict(loss_weight=head.loss.loss_weight)
    if head.type != "LinearClsHead":
        changes["type"] = head.type
    return PublishedMethod(
        hook.terms.to_dict(),
        changes,
        config.data_preprocessor.get("type"),
        None if "config" in hook.teacher else hook.teacher.to_dict(),
    )
