"""What a checkpoint's file has to be before any of it is read."""

from __future__ import annotations

import zipfile
from pathlib import Path

from mmkd.input_files import check_regular, files_up_to

__all__ = ["check_archive", "regular_file"]

# The only calls open to a torch file by which a few bytes fill the memory.
_BOMBS = (b"\nbytearray\n", b"\n_rebuild_device_tensor_from_")


def regular_file(path: str | Path) -> Path:
    """The path, its ``~`` expanded.

    Raises:
        FileNotFoundError: No such file.
        InputError: A device or a pipe, which has no end or waits for a writer.
    """
    file = Path(path).expanduser()
    try:
        is_missing = not file.exists() or file.is_dir()
    except OSError as error:  # A name too long.
        raise FileNotFoundError(f"no such file: {path} ({error.strerror})") from error
    if is_missing:
        raise FileNotFoundError(f"no such file: {path}")
    with files_up_to(0):  # Weights take the memory that they take in the model.
        check_regular(file, "a checkpoint")
    return file


def check_archive(file: Path) -> None:
    """Raises unless what a torch file unpacks to fits into it. Older ones are no archives.

    Raises:
        ValueError: Parts that claim more bytes than the file has, as compressed ones may (torch
            compresses none), or a call that would fill the memory.
    """
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        claimed = sum(part.file_size for part in archive.infolist())
        held = file.stat().st_size
        if claimed > held:
            raise ValueError(f"its parts claim {claimed} bytes, and the file has {held}")
        for part in archive.infolist():
            if part.filename.endswith("data.pkl") and any(
                bomb in archive.read(part) for bomb in _BOMBS
            ):
                raise ValueError("it asks for memory that its own content would not fill")
