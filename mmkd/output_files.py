"""Files that a user asks for: checked before the work is done, and written in one step."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmkd.errors import InputError
from mmkd.input_files import real_path

__all__ = ["check_output", "check_output_folder", "write_text", "written_whole"]


def check_output(file: Path, name: str | None = None) -> None:
    """Makes sure, as far as can be told, that a file can be written or replaced.

    Args:
        file: Its folders may be missing.
        name: What messages call it; by default as it is.

    Raises:
        InputError: It, or what its folder is called, is something else; or it is forbidden.
    """
    name = name or str(file)
    place = real_path(file)
    if file.is_symlink() and not place.exists():
        raise InputError(f"{name}: expected a file to write, found a link that leads nowhere")
    if place.is_dir():
        raise InputError(f"{name}: expected the name of a file to write, found a folder")
    if place.exists() and not place.is_file():
        raise InputError(f"{name}: expected a file to write, found a device or a pipe")
    _check_folder_of(place, f"{name}: expected a file in a folder")


def check_output_folder(folder: Path) -> None:
    """Makes sure, as far as can be told, that a folder can be made, or written into.

    Raises:
        InputError: It, or one above, is something else; or it is forbidden.
    """
    place = real_path(folder)
    if folder.is_symlink() and not place.exists():
        raise InputError(f"{folder}: expected a folder to write, found a link that leads nowhere")
    _check_folder_of(place / "file", f"{folder}: expected a folder to write")


def _check_folder_of(place: Path, expected: str) -> None:
    nearest = next(each for each in place.parents if each.exists())
    if not nearest.is_dir():
        raise InputError(f"{expected}, but {nearest} is a file")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"{expected}, but nothing may be written into {nearest}: name another")


@contextmanager
def written_whole(file: Path) -> Iterator[Path]:
    """A path to write to, which becomes the file at the end: whoever is stopped while writing, or
    finds the disk full, leaves no half of it, and of several that write one file at the same time
    each writes its own.

    Args:
        file: Its folders are made. One that is there is replaced; where it is a link, what that
            leads to.

    Raises:
        OSError: It cannot be written. It tells the file, also where the system's own error does
            not.
    """
    place = real_path(file)
    # Of its own name no more than the ending, by which some formats are known: it may be as long
    # as the system allows.
    unfinished = place.with_name(f".{secrets.token_hex(8)}.part{place.suffix[:16]}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        unfinished.replace(place)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(file)) from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def write_text(file: Path, text: str) -> None:
    """Writes text in UTF-8, as :func:`written_whole` does.

    Args:
        file: See there.
        text: Half of a surrogate pair in it, which JSON can spell and UTF-8 cannot, becomes "?".
    """
    with written_whole(file) as unfinished:
        unfinished.write_text(text, encoding="utf-8", errors="replace")
