"""In which order a training loads the channels of its images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from mmkd.engine.input_conversion import Order

__all__ = ["configured_order", "loaded_order"]

# Of MMCV; what it reads is BGR.
_READER = "LoadImageFromFile"
# MMPretrain's data sets that hold RGB in memory.
_RGB = {"CIFAR10", "CIFAR100"}


def loaded_order(dataset: Any) -> Order | None:
    """Of a data set that MMEngine built, and those it wraps; None where it is not known."""

    def names(values: Iterable[Any]) -> set[str]:
        return {kind.__name__ for value in values for kind in type(value).__mro__}

    leaves = _leaves(dataset, lambda part, name: getattr(part, name, None))
    pipelines = (getattr(leaf, "pipeline", None) for leaf in leaves)
    steps = (getattr(pipeline, "transforms", ()) for pipeline in pipelines)
    return _common(
        _order(names([leaf]), names(each)) for leaf, each in zip(leaves, steps, strict=True)
    )


def configured_order(dataset: Any) -> Order | None:
    """The same of a data set's config; None too where there is none."""

    def names(parts: Iterable[Any]) -> set[str]:
        kinds = (part.get("type") for part in parts)
        # A type stands there itself, or its name, ``'mmpretrain.CIFAR100'``.
        return {getattr(kind, "__name__", str(kind)).rpartition(".")[2] for kind in kinds}

    leaves = _leaves(dataset, lambda part, name: part.get(name)) if dataset else []
    return _common(_order(names([leaf]), names(leaf.get("pipeline") or ())) for leaf in leaves)


def _order(dataset: set[str], steps: set[str]) -> Order | None:
    if _READER in steps:
        return "bgr"
    return "rgb" if _RGB & dataset else None


def _common(orders: Iterable[Order | None]) -> Order | None:
    found = set(orders)
    return found.pop() if len(found) == 1 else None


def _leaves(dataset: Any, part: Callable[[Any, str], Any]) -> list[Any]:
    """Of data sets that wrap each other, those that load."""
    found = (part(dataset, "dataset"), *(part(dataset, "datasets") or ()))
    inner = [each for each in found if each is not None]
    if not inner:
        return [dataset]
    return [leaf for each in inner for leaf in _leaves(each, part)]
