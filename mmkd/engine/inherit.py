"""Weights that the student takes over from the teacher before training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mmkd.distillation import FeatureSource
from mmkd.errors import InputError, InputTypeError, first_few, naming
from mmkd.features import find_module

__all__ = ["Inheritance", "inheritances", "parse_inherit"]


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


@dataclass(frozen=True)
class Inheritance:
    """What one module of the student takes over.

    Args:
        module: The student's.
        weights: The teacher's, by the module's own keys.
        left: Modules within it whose shapes differ, which keep their own.
    """

    module: nn.Module
    weights: Mapping[str, Tensor]
    left: Sequence[str]

    def take_over(self) -> None:
        """Copies the weights."""
        self.module.load_state_dict(self.weights, strict=False)

    def __str__(self) -> str:
        if not self.left:
            return "takes over the teacher's weights"
        kept = first_few(self.left)
        return f"takes over the teacher's weights, but for {kept}, whose shapes differ"


def inheritances(
    owner: str, student: nn.Module, teacher: FeatureSource, inherit: Mapping[str, str]
) -> dict[str, Inheritance]:
    """What each entry of ``inherit`` comes to, by the student's path.

    A layer is taken over as a whole or not at all. Within a neck or a head, one whose shape differs
    keeps its own weights, as FGD and MGD start a student with another backbone.

    Raises:
        ValueError: A path names no module, or nothing of it fits; one layer that does not.
    """
    found = {}
    for ours, theirs in inherit.items():
        with naming(f"{owner} inherit.{ours}"):
            pair = find_module(student, ours), teacher.module(theirs)
            found[ours] = _inheritance(ours, theirs, *pair)
    return found


def _inheritance(ours: str, theirs: str, student: nn.Module, teacher: nn.Module) -> Inheritance:
    own, other = (_by_layer(module) for module in (student, teacher))
    if not own:
        raise ValueError(f"the student's {ours} holds no weights to take over")
    fitting = [layer for layer in own if _shapes(own[layer]) == _shapes(other.get(layer, {}))]
    if not fitting:
        shapes = [_shapes(module.state_dict()) for module in (student, teacher)]
        raise ValueError(
            f"the student's {ours} holds {shapes[0]}, the teacher's {theirs} {shapes[1]}: both "
            "need the same weights. A reused classifier has the teacher's classes and width: set "
            "num_classes, and teacher_channels of mmkd.ConnectorClsHead, to the teacher's"
        )
    weights = {key: value for layer in fitting for key, value in other[layer].items()}
    return Inheritance(student, weights, [layer for layer in own if layer not in fitting])


def _by_layer(module: nn.Module) -> dict[str, dict[str, Tensor]]:
    """Entries of the ``state_dict`` by the module that holds them."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in module.state_dict().items():
        found.setdefault(key.rpartition(".")[0], {})[key] = value
    return found


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}
