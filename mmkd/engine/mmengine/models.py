"""MMEngine's models as hooks meet them: wrapped by parallel training, called with samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.model import is_model_wrapper

__all__ = ["inputs_and_samples", "unwrapped"]


def unwrapped(model: Any) -> Any:
    """The model that a wrapper of parallel training holds, or itself."""
    return model.module if is_model_wrapper(model) else model


def inputs_and_samples(args: tuple, kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
    """What a model's ``forward(inputs, data_samples, mode)`` was called with."""
    inputs = kwargs["inputs"] if "inputs" in kwargs else args[0]
    return inputs, kwargs.get("data_samples", args[1] if len(args) > 1 else None)
