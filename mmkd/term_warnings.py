"""What a training has said of terms that cannot help it, kept in its folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mmkd.errors import InputError
from mmkd.input_files import read_text
from mmkd.output_files import write_text

__all__ = ["TermWarning", "read_warnings", "write_warnings"]

_FILE = "distill_warnings.json"


class TermWarning(NamedTuple):
    """That a term cannot help.

    Args:
        term: Its name.
        kind: ``'opposed'``, ``'still'``, ``'no lead'`` or ``'bound'``.
        text: What was measured, and what to change.
    """

    term: str
    kind: str
    text: str


def write_warnings(folder: Path, warnings: Sequence[TermWarning]) -> None:
    """Makes them all that a run's folder tells: without any, the file of another run goes."""
    file = folder / _FILE
    if warnings:
        write_text(file, json.dumps([each._asdict() for each in warnings], indent=2) + "\n")
    else:
        file.unlink(missing_ok=True)


def read_warnings(folder: Path) -> list[str]:
    """The texts that a run has left in its folder; none where it has left no file.

    Raises:
        InputError: The file is something else, or too large.
    """
    file = folder / _FILE
    if not file.is_file():
        return []
    try:
        texts = [each["text"] for each in json.loads(read_text(file))]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{_FILE} cannot be read") from error
    if not all(isinstance(text, str) for text in texts):
        raise InputError(f"{_FILE} cannot be read")
    return texts
