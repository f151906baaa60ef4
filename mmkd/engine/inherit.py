"""Weights that the student takes over from the teacher before training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mmkd.distillation import FeatureSource
from mmkd.errors import InputError, InputTypeError, naming
from mmkd.features import find_module

__all__ = ["matching_modules", "parse_inherit"]


def parse_inherit(owner: str, inherit: Any, sources: int) -> dict[str, str]:
    """Reads the ``inherit`` setting: student module to teacher module, by path.

    Args:
        owner: Whose setting it is.
        inherit: The setting; None for nothing.
        sources: Number of teachers.

    Raises:
        TypeError: Not a dict of paths.
        ValueError: There are several teachers.
    """
    if inherit is None:
        return {}
    if not isinstance(inherit, Mapping) or not all(
        isinstance(path, str) for pair in inherit.items() for path in pair
    ):
        raise InputTypeError.at(
            f"{owner} inherit",
            f"expected a dict of student module to teacher module, such as "
            f"{{'head.fc': 'head.fc'}}, got {inherit!r}",
        )
    if sources > 1:
        raise InputError.at(
            f"{owner} inherit", f"weights come from one teacher, and {sources} are given"
        )
    return dict(inherit)


def matching_modules(
    owner: str, student: nn.Module, teacher: FeatureSource, inherit: Mapping[str, str]
) -> dict[str, tuple[nn.Module, nn.Module]]:
    """The student's and the teacher's module of each entry of ``inherit``.

    Raises:
        ValueError: A path names no module, or the two do not hold the same weights.
    """
    pairs = {}
    for ours, theirs in inherit.items():
        with naming(f"{owner} inherit.{ours}"):
            pair = find_module(student, ours), teacher.module(theirs)
            _check_shapes(ours, theirs, *(module.state_dict() for module in pair))
        pairs[ours] = pair
    return pairs


def _check_shapes(
    ours: str, theirs: str, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]
) -> None:
    shapes = [{k: tuple(v.shape) for k, v in state.items()} for state in (student, teacher)]
    if not shapes[0]:
        raise ValueError(f"the student's {ours} holds no weights to take over")
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"the student's {ours} holds {shapes[0]}, the teacher's {theirs} {shapes[1]}: both "
            "need the same weights. A reused classifier has the teacher's classes and width: set "
            "num_classes, and teacher_channels of mmkd.ConnectorClsHead, to the teacher's"
        )
