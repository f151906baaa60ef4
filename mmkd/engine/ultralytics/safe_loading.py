"""Ultralytics' own switch for reading its checkpoints without executing them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["SWITCH", "is_safe", "load_safely", "switched"]

SWITCH = "ULTRALYTICS_SAFE_LOAD"
# Each has its own copy of what the switch said when it was imported.
_READERS = ("ultralytics.utils", "ultralytics.nn.tasks")


def load_safely() -> None:
    """Turns the switch on, here and in the processes that a training starts, unless the user has
    set it. Ultralytics' default executes what its files hold."""
    if SWITCH in os.environ:
        return
    os.environ[SWITCH] = "1"
    _set(True)


def is_safe() -> bool:
    """Whether Ultralytics reads files without executing them."""
    from ultralytics.nn import tasks

    return bool(tasks.SAFE_LOAD)


@contextmanager
def switched(on: bool) -> Iterator[None]:
    """Switched on or off while it lasts, whatever the user has set."""
    before = is_safe()
    _set(on)
    try:
        yield
    finally:
        _set(before)


def _set(on: bool) -> None:
    for name in _READERS:
        module: Any = sys.modules.get(name)
        if module is not None:
            module.SAFE_LOAD = on
