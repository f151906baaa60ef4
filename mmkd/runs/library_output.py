"""What libraries print and warn, out of sight."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

__all__ = ["output_to"]


@contextlib.contextmanager
def output_to(log: Path) -> Iterator[None]:
    """Appends what is printed to a file; warnings are left out."""
    with (
        log.open("a", encoding="utf-8") as stream,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(stream),
        contextlib.redirect_stderr(stream),
    ):
        warnings.simplefilter("ignore")
        yield
