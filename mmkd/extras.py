"""Packages that only a part of mmkd needs, and how a user who lacks one gets it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mmkd.errors import InputError

__all__ = ["MissingExtraError", "extra"]


class MissingExtraError(InputError, ImportError):
    """A package of one of mmkd's extras is missing; commands show the message alone."""


@contextmanager
def extra(name: str, purpose: str) -> Iterator[None]:
    """Around imports of packages that an extra of mmkd's installs.

    Args:
        name: Of the extra, as pyproject.toml lists it (``'report'``).
        purpose: What needs it, for the message (``'mmkd report'``).

    Raises:
        MissingExtraError: An import failed. It says of which package, and how to install it. Of
            several around one import, the outermost speaks: its extra holds the others'.
    """
    try:
        yield
    except ImportError as error:
        # What is wrong with mmkd's own modules is no package that could be installed.
        if (error.name or "").partition(".")[0] == "mmkd":
            raise
        failed = error.__cause__ if isinstance(error, MissingExtraError) else error
        raise MissingExtraError(
            f"{purpose} needs the extra {name!r} ({failed}): pip install 'mmkd[{name}]', or in a "
            f"clone pip install -e '.[{name}]'"
        ) from failed
