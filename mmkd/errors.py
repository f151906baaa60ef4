"""What a user did wrong: errors that carry the setting they come from."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

__all__ = [
    "InputError",
    "InputTypeError",
    "MissingFileError",
    "SettingError",
    "TermError",
    "check_keys",
    "did_you_mean",
    "first_few",
    "naming",
]

_SHOWN = 5


class SettingError(Exception):
    """Something that a user can mend.

    Args:
        message: What was expected, what was found, what to do.
        setting: Path of the setting, such as ``'DistillHook terms.backbone.view'``; None where it
            is no setting (a file, for instance).
    """

    def __init__(self, message: str = "", *, setting: str | None = None) -> None:
        super().__init__(message)
        self.setting = setting

    @classmethod
    def at(cls, setting: str, message: str) -> SettingError:
        """Of a setting, which the message begins with."""
        return cls(f"{setting}: {message}", setting=setting)


class InputError(SettingError, ValueError):
    """A value or a file that cannot be used."""


class InputTypeError(InputError, TypeError):
    """A value of another type than was expected."""


class MissingFileError(InputError, FileNotFoundError):
    """A file that is not there."""


class TermError(SettingError, RuntimeError):
    """A term that does not work in the training at hand."""


_KINDS = {
    FileNotFoundError: MissingFileError,
    TypeError: InputTypeError,
    ValueError: InputError,
    RuntimeError: TermError,
}


@contextmanager
def naming(setting: str) -> Iterator[None]:
    """Names the setting in errors of the user's making; one that names a setting already is left
    as it is.

    Args:
        setting: Owner and key: ``'DistillHook terms.backbone'``.

    Raises:
        InputError, TermError: For a ValueError, TypeError, FileNotFoundError or RuntimeError.
    """
    try:
        yield
    except tuple(_KINDS) as error:
        # Of the RuntimeErrors' kinds, running out of memory for instance is for others to handle.
        is_other = isinstance(error, RuntimeError) and type(error) not in (RuntimeError, TermError)
        if is_other or (isinstance(error, SettingError) and error.setting is not None):
            raise
        kind = next(own for base, own in _KINDS.items() if isinstance(error, base))
        raise kind.at(setting, str(error)) from error


def check_keys(where: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raises unless every key is known.

    Args:
        where: The setting that holds them.
        given, known: Keys.

    Raises:
        InputError: An unknown key, with the closest one that is known.
    """
    known = list(known)
    for key in given:
        if key not in known:
            hint = did_you_mean(str(key), known)
            message = f"{where} has no key {key!r}{hint}; it takes {', '.join(known)}"
            raise InputError(message, setting=where)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The closest name that is known, for a message; empty where none is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def first_few(items: Sequence[str], separator: str = ", ") -> str:
    """The first items for a message, and how many more there are."""
    rest = len(items) - _SHOWN
    return separator.join(items[:_SHOWN]) + (f"{separator}and {rest} more" if rest > 0 else "")
