"""Child registries of MMEngine's.

A type named ``mmkd.X`` resolves only through these, so a config cannot pick up another package's
class of the same name.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import Registry
from torch import nn

__all__ = ["DATASETS", "HOOKS", "MODELS", "arguments_of", "build_part", "find_class"]

MODELS = Registry(
    "model",
    parent=MMENGINE_MODELS,
    scope="mmkd",
    locations=[
        "mmkd.projectors",
        "mmkd.normalizers",
        "mmkd.losses",
        "mmkd.balance",
        "mmkd.distiller",
        "mmkd.distillers",
        "mmkd.models",
    ],
)
DATASETS = Registry(
    "dataset",
    parent=MMENGINE_DATASETS,
    scope="mmkd",
    locations=["mmkd.data.mmengine.handwritten_digits", "mmkd.data.mmengine.seeded_subset"],
)
HOOKS = Registry("hook", parent=MMENGINE_HOOKS, scope="mmkd", locations=["mmkd.engine.mmengine"])


def find_class(kind: str | type) -> type:
    """The class that a config names as its ``type``.

    Raises:
        ValueError: None is registered under that name.
    """
    if not isinstance(kind, str):
        return kind
    try:
        found = MODELS.get(kind)
    # MMEngine's answer to an unknown name, in newer and older releases.
    except RuntimeError:
        found = None
    if found is None:
        raise ValueError(
            f"no class is registered under {kind!r}; the project's own start 'mmkd.', and those of "
            "a file of yours are known once it is imported (custom_imports)"
        )
    return found


def arguments_of(cls: type) -> dict[str, inspect.Parameter]:
    """What a class's constructor takes by name; where it passes ``**kwargs`` on, also what those of
    the classes above it take."""
    found: dict[str, inspect.Parameter] = {}
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for each in cls.__mro__:
        if "__init__" not in vars(each):
            continue
        parameters = list(inspect.signature(each).parameters.values())
        found = {p.name: p for p in parameters if p.kind not in variadic} | found
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
            break
    return found


def build_part(part: nn.Module | Mapping[str, Any], **inferred: Any) -> nn.Module:
    """Builds a projector, normalizer or loss from its config.

    Args:
        part: A module (returned as it is) or a config such as ``dict(type='mmkd.LogSumLoss')``.
        inferred: Arguments that the config may leave out; those that the class does not take
            are dropped.

    Raises:
        TypeError: ``part`` is neither a module nor a mapping.
        ValueError: The config names no ``type``, or an argument is neither given nor known.
    """
    if isinstance(part, nn.Module):
        return part
    if not isinstance(part, Mapping):
        raise TypeError(f"expected a module or a config dict with 'type', got {part!r}")
    if "type" not in part:
        raise ValueError(f"a config dict needs the key 'type', got {dict(part)!r}")
    kind = part["type"]
    cls = find_class(kind)
    taken = inspect.signature(cls).parameters
    arguments = {k: v for k, v in inferred.items() if k in taken and k not in part}
    missing = [k for k, v in arguments.items() if v is None and taken[k].default is inspect._empty]
    if missing:
        names = ", ".join(missing)
        raise ValueError(f"{kind} needs {names}: give it beside the part, or in its config")
    # By its class: the default scope of the day may be another package's.
    return MODELS.build({**part, **arguments, "type": cls})
