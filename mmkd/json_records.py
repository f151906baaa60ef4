"""Lists of objects in JSON files, checked column by column; errors name the entry at fault."""

from __future__ import annotations

import hashlib
import json
import math
import reprlib
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmkd.errors import InputError
from mmkd.input_files import read_bytes

__all__ = ["Records", "listed", "read_json", "shown"]

# Pixels. No image is that large, and products of four such numbers are still finite.
_LARGEST_COORDINATE = 1e9
_CORRECT = "Correct or remove these entries."
_KINDS = {dict: "an object", list: "a list", str: "a string", type(None): "null"}


class _Absent:
    def __repr__(self) -> str:
        return "nothing"


_ABSENT = _Absent()

_short = reprlib.Repr()
_short.maxstring = _short.maxlong = _short.maxother = 60
_short.maxlist, _short.maxdict, _short.maxlevel = 6, 6, 3


def shown(value: Any) -> str:
    """A value from JSON for a message, cut where it is long."""
    return _short.repr(value)


def listed(values: Iterable[Any], limit: int = 12) -> str:
    """Values for a message; the first ones and their number where there are many."""
    values = list(values)
    text = ", ".join(shown(value) for value in values[:limit]) or "none"
    return text if len(values) <= limit else f"{text}, ... ({len(values)} in all)"


def read_json(file: Path, expected: str) -> tuple[Any, str]:
    """Reads a JSON file.

    Args:
        file: In UTF-8.
        expected: What it should be, for messages.

    Returns:
        Its content and the SHA-256 of its bytes in hexadecimal.

    Raises:
        InputError: The file is missing, no regular file, too large or cannot be read, is not UTF-8
            or not JSON.
    """
    raw = read_bytes(file, expected)
    try:
        return json.loads(raw.decode("utf-8-sig")), hashlib.sha256(raw).hexdigest()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{file}: expected {expected} in UTF-8, found a byte that is not, at position "
            f"{error.start}. Check that it is the right file, and save it in UTF-8."
        ) from error
    except RecursionError as error:
        raise InputError(
            f"{file}: expected {expected}, found lists or objects too deep to read. Check that it "
            "is the right file."
        ) from error
    except ValueError as error:
        raise InputError(
            f"{file}: expected {expected}, found what is not JSON: {error}. Check that it is the "
            "right file and that writing it was not cut short."
        ) from error


class Records:
    """A list of objects of a JSON file.

    Args:
        file: For messages.
        name: The list's key in the file, or what its entries are.
        entries: Must be a list of objects.

    Raises:
        InputError: It is none.
    """

    def __init__(self, file: Path, name: str, entries: Any) -> None:
        self.file, self.name = file, name
        if not isinstance(entries, list):
            raise InputError(
                f"{file}: expected a list of {name}, found {_kind(entries)}. Check that it is the "
                "right file."
            )
        wrong = _of_other_types(entries, {dict})
        if wrong:
            raise InputError(
                f"{file}: {name}[{wrong[0]}]: expected an object, found {_kind(entries[wrong[0]])}"
                f"{_and_more(wrong)}. Correct or remove what is no object."
            )
        self.entries: list[dict[str, Any]] = entries

    def __len__(self) -> int:
        return len(self.entries)

    def error(self, wrong: Sequence[int], key: str, expected: str, remedy: str) -> InputError:
        """What to raise for entries whose value is wrong.

        Args:
            wrong: Indices of the entries; at least one.
            key: Where the value is.
            expected: What it should be.
            remedy: A sentence on what to do.
        """
        found = shown(self.entries[wrong[0]].get(key, _ABSENT))
        return InputError(
            f"{self.file}: {self.name}[{wrong[0]}]: expected '{key}' to be {expected}, found "
            f"{found}{_and_more(wrong)}. {remedy}"
        )

    def values(
        self,
        key: str,
        types: set[type],
        expected: str,
        *,
        default: Any = _ABSENT,
        remedy: str = _CORRECT,
    ) -> list[Any]:
        """The values of a key.

        Args:
            key: In every entry.
            types: Those allowed; bool is not an int.
            expected: What they are, for messages.
            default: Where an entry has no such key; by default it must have one.
            remedy: A sentence on what to do about others.

        Raises:
            InputError: A value is missing or of another type.
        """
        values = [entry.get(key, default) for entry in self.entries]
        wrong = _of_other_types(values, types if default is _ABSENT else {*types, type(default)})
        if wrong:
            raise self.error(wrong, key, expected, remedy)
        return values

    def texts(self, key: str, *, default: Any = _ABSENT) -> list[str]:
        """The strings of a key, which can be written to any file."""
        values = self.values(key, {str}, "a string", default=default)
        wrong = [index for index, value in enumerate(values) if not _is_text(value)]
        if wrong:
            raise self.error(wrong, key, "plain text", _CORRECT)
        return values

    def unique(self, key: str, values: Sequence[Any], remedy: str) -> None:
        """Checks that no two entries have the same value.

        Raises:
            InputError: They have.
        """
        if len(set(values)) == len(values):
            return
        first = {value: index for index, value in reversed([*enumerate(values)])}
        wrong = [index for index, value in enumerate(values) if first[value] != index]
        raise self.error(wrong, key, "unlike those before it", remedy)

    def numbers(self, key: str) -> NDArray[np.float64]:
        """``[n]``, finite numbers from 0 up.

        Raises:
            InputError: A value is something else.
        """
        expected = "a finite number, 0 or more"
        numbers = _floats(self.values(key, {int, float}, expected))
        wrong = np.flatnonzero(~(np.isfinite(numbers) & (numbers >= 0))).tolist()
        if wrong:
            raise self.error(wrong, key, expected, _CORRECT)
        return numbers

    def flags(self, key: str) -> list[bool]:
        """Zeros and ones as such; 0 where an entry has no such key.

        Raises:
            InputError: A value is something else, such as the text "0".
        """
        values = self.values(key, {int, bool}, "0 or 1", default=0)
        wrong = [index for index, value in enumerate(values) if value not in (0, 1)]
        if wrong:
            raise self.error(wrong, key, "0 or 1", "Correct these entries.")
        return list(map(bool, values))

    def boxes(self, remedy: str = _CORRECT) -> NDArray[np.float64]:
        """``[n, 4]``, the entries' ``bbox``: x, y, width and height in pixels.

        Args:
            remedy: A sentence on what to do about entries without a list of four.

        Raises:
            InputError: A box is missing, has other than four finite numbers, or a negative width
                or height.
        """
        expected = "a list of four numbers: x, y, width, height"
        values: list[list[Any]] = self.values("bbox", {list}, expected, remedy=remedy)
        if not set(map(len, values)) <= {4}:
            wrong = [index for index, value in enumerate(values) if len(value) != 4]
            raise self.error(wrong, "bbox", expected, remedy)
        if not set(map(type, chain.from_iterable(values))) <= {int, float}:
            wrong = [i for i, value in enumerate(values) if _of_other_types(value, {int, float})]
            raise self.error(wrong, "bbox", expected, _CORRECT)
        boxes = _floats(list(chain.from_iterable(values))).reshape(-1, 4)
        # Written so that nan fails.
        sound = (np.abs(boxes) <= _LARGEST_COORDINATE).all(axis=1) & (boxes[:, 2:] >= 0).all(axis=1)
        if not sound.all():
            expected = (
                f"finite pixels (at most {_LARGEST_COORDINATE:.0e}), its width and height not "
                "negative"
            )
            raise self.error(np.flatnonzero(~sound).tolist(), "bbox", expected, _CORRECT)
        return boxes


def _kind(value: Any) -> str:
    """What a value is called in JSON."""
    return _KINDS.get(type(value), f"the value {shown(value)}")


def _is_text(value: str) -> bool:
    """Whether a string can be written to any file and used as a path."""
    return "\0" not in value and value.encode(errors="ignore").decode() == value


def _of_other_types(values: Sequence[Any], types: set[type]) -> list[int]:
    """Indices of those that are of none of these types."""
    # Nearly always all are well, which the set tells much faster.
    if set(map(type, values)) <= types:
        return []
    return [index for index, value in enumerate(values) if type(value) not in types]


def _and_more(wrong: Sequence[int]) -> str:
    return f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""


def _floats(values: Sequence[float]) -> NDArray[np.float64]:
    """As float64; whole numbers beyond it become infinite."""
    try:
        return np.array(values, dtype=np.float64)
    except OverflowError:
        return np.array([value if abs(value) < 1e300 else math.inf for value in values], np.float64)
