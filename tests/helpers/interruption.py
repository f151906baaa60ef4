"""Ending a training as a killed process would."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Killed", "kill_after"]


class Killed(Exception):
    """Stands in for whatever ends a process."""


def kill_after(iterations: int) -> Callable[[], None]:
    """To be called after every iteration; raises Killed in the last of them."""
    seen = 0

    def on_iteration() -> None:
        nonlocal seen
        seen += 1
        if seen == iterations:
            raise Killed

    return on_iteration
