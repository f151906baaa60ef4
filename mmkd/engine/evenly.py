"""Which items of a data set stand for all of it."""

from __future__ import annotations

__all__ = ["evenly"]


def evenly(count: int, total: int) -> list[int]:
    """So many indices, spread over all: a set's classes, or its scenes, may lie in order.

    Args:
        count: As many as there are, where that is less.
        total: Of the items.
    """
    count = min(count, total)
    return [index * total // count for index in range(count)]
