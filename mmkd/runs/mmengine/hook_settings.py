"""Entries of a config's ``custom_hooks``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["distils", "records", "type_of"]


def distils(hook: Any) -> bool:
    """Whether an entry of ``custom_hooks`` is a DistillHook."""
    return isinstance(hook, Mapping) and type_of(hook) == "DistillHook"


def records(hook: Any) -> bool:
    """Whether an entry of ``custom_hooks`` is a DynamicsHook, which looks at a DistillHook."""
    return isinstance(hook, Mapping) and type_of(hook) == "DynamicsHook"


def type_of(settings: Any) -> str:
    """The last part of a type's name; empty where there is not one."""
    if not isinstance(settings, Mapping) or not settings.get("type"):
        return ""
    kind = settings["type"]
    return (kind if isinstance(kind, str) else kind.__name__).rpartition(".")[2]
