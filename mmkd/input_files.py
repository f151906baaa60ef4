"""Files that a user names: read where they are files at all, and no larger than expected."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from mmkd.errors import InputError, MissingFileError

__all__ = [
    "LARGEST_MB",
    "check_regular",
    "files_up_to",
    "read_bytes",
    "read_text",
    "real_path",
    "sha256",
]

# A file of JSON takes some ten times its size in memory. Detections on LVIS come close to it.
LARGEST_MB = 1000
_largest: ContextVar[int] = ContextVar("largest", default=LARGEST_MB)


@contextmanager
def files_up_to(megabytes: int) -> Iterator[None]:
    """Sets the size of the largest file that is read meanwhile.

    Args:
        megabytes: In millions of bytes; 0 for any size.
    """
    token = _largest.set(megabytes)
    try:
        yield
    finally:
        _largest.reset(token)


def check_regular(file: Path, expected: str = "a file") -> None:
    """Makes sure that reading a file ends: that it is no device, no pipe, and not too large.

    Args:
        file: A link to such a file will do.
        expected: What it should be, for messages.

    Raises:
        InputError: It is missing (then a MissingFileError), something else than a file, or too
            large.
    """
    with _readable(file, expected):
        found = os.stat(file)
    if not stat.S_ISREG(found.st_mode):
        what = "a folder" if stat.S_ISDIR(found.st_mode) else "a device or a pipe"
        raise InputError(f"{file}: expected {expected}, found {what}. Give a regular file.")
    largest = _largest.get()
    if 0 < largest * 10**6 < found.st_size:
        raise InputError(
            f"{file}: expected {expected} of at most {largest} MB, found {found.st_size / 1e6:.0f} "
            "MB. Check that it is the right file, or allow larger ones by --max-file-mb."
        )


def read_bytes(file: Path, expected: str = "a file") -> bytes:
    """What a file holds.

    Args:
        file: A link to such a file will do.
        expected: What it should be, for messages.

    Raises:
        InputError: See :func:`check_regular`; or it cannot be read.
    """
    check_regular(file, expected)
    with _readable(file, expected):
        return file.read_bytes()


def read_text(file: Path, expected: str = "a text file") -> str:
    """Likewise, as text; what is not UTF-8 is replaced."""
    return read_bytes(file, expected).decode(errors="replace")


def sha256(file: Path) -> str:
    """The digest of a file of any size, which is not held in memory, in hexadecimal.

    Raises:
        OSError: It cannot be read.
    """
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        for part in iter(lambda: stream.read(1 << 20), b""):
            digest.update(part)
    return digest.hexdigest()


def real_path(path: Path) -> Path:
    """The absolute path, links followed, of what may be missing.

    Raises:
        InputError: The links lead in a circle, or no path can be called so.
    """
    try:
        return path.resolve()
    # Python 3.13 tells of a circle by none of these, and leaves it to whoever opens the path.
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: leads nowhere: {_reason(error)}. Check the path.") from error


@contextmanager
def _readable(file: Path, expected: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        kind = MissingFileError if isinstance(error, FileNotFoundError) else InputError
        raise kind(
            f"{file}: expected {expected}, but the file cannot be read: {_reason(error)}. Check "
            "the path."
        ) from error


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
