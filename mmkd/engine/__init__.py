"""Adapters, one folder per trainer. They hold no mathematics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmkd.engine.mmengine import ClassifierAlignmentHook, DistillHook

__all__ = ["ClassifierAlignmentHook", "DistillHook"]


def __getattr__(name: str) -> Any:
    """MMEngine's hooks, on first use: another trainer's adapter does without MMEngine's Runner."""
    if name not in __all__:
        raise AttributeError(f"module 'mmkd.engine' has no attribute {name!r}")
    from mmkd.engine import mmengine

    return getattr(mmengine, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
