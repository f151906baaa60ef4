"""What ``mmkd analyze`` is given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mmkd.commands.named_files import split_name
from mmkd.dynamics_file import (
    DYNAMICS_FILE,
    DynamicsMatrix,
    DynamicsRow,
    read_dynamics,
    read_matrices,
)
from mmkd.errors import InputError, MissingFileError
from mmkd.input_files import real_path
from mmkd.work_dirs import read_work_dir
from mmkd.work_dirs.work_dir import SEED

__all__ = ["Recording", "read_recordings"]


class Recording(NamedTuple):
    """What one training left.

    Args:
        place: The folder, or the file alone.
        rows: Of its ``dynamics.csv``; none where it recorded nothing.
        matrices: Beside that.
    """

    place: Path
    rows: list[DynamicsRow]
    matrices: list[DynamicsMatrix]


def read_recordings(
    arguments: Sequence[str], *, must_record: bool = True
) -> dict[str, list[Recording]]:
    """By run, its seeds.

    Args:
        arguments: ``[NAME=]WORK_DIR`` or ``[NAME=]FILE``.
        must_record: Whether a folder without a ``dynamics.csv`` is an error.

    Raises:
        InputError: A folder without recordings, a file without values, or one given twice.
        FileNotFoundError: There is none.
    """
    runs: dict[str, list[Recording]] = {}
    seen: set[Path] = set()
    for argument in arguments:
        name, path = split_name(argument)
        file = path / DYNAMICS_FILE if path.is_dir() else path
        if real_path(file) in seen:
            raise InputError(f"{file} is given twice")
        seen.add(real_path(file))
        rows = _read(path, file) if must_record or file.is_file() else []
        matrices = read_matrices(file) if rows else []
        runs.setdefault(name or _called(file), []).append(Recording(path, rows, matrices))
    return runs


def _read(path: Path, file: Path) -> list[DynamicsRow]:
    if not file.is_file():
        if not path.is_dir():
            raise MissingFileError(f"{path}: no such folder, or dynamics.csv")
        raise InputError(
            f"{path}: nothing was recorded, there is no {DYNAMICS_FILE}. A training records "
            "with dict(type='mmkd.DynamicsHook') among its custom_hooks, or with dynamics=True "
            "of mmkd yolo train"
        )
    rows = list(read_dynamics(file))
    if not rows:
        raise InputError(f"{file}: expected a file that a DynamicsHook has written")
    return rows


def _called(file: Path) -> str:
    try:
        return read_work_dir(file.parent).name
    except InputError:  # Of a loop of one's own, there is nothing else.
        name = file.parent.resolve().name if file.name == DYNAMICS_FILE else file.stem
        return SEED.sub("", name)
