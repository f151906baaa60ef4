"""Which classes torch builds for real while it reads a file as data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["global_name", "only_allowing"]


@contextmanager
def only_allowing(entries: Sequence[Any]) -> Iterator[None]:
    """Sets aside what others in this process have allowed.

    Args:
        entries: Classes, or pairs of what stands for a name and the name, as torch takes them.
    """
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(list(entries))
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def global_name(entry: Any) -> str:
    """By which a file would name what is allowed."""
    return entry[1] if isinstance(entry, tuple) else f"{entry.__module__}.{entry.__qualname__}"
