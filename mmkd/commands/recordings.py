"""What ``mmkd analyze`` is given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmkd.commands.named_files import split_name
from mmkd.dynamics_file import DYNAMICS_FILE, DynamicsRow, read_dynamics
from mmkd.errors import InputError, MissingFileError
from mmkd.input_files import real_path
from mmkd.work_dirs import read_work_dir
from mmkd.work_dirs.work_dir import SEED

__all__ = ["read_recordings"]


def read_recordings(arguments: Sequence[str]) -> dict[str, list[list[DynamicsRow]]]:
    """By run, what each of its seeds recorded.

    Args:
        arguments: ``[NAME=]WORK_DIR`` or ``[NAME=]FILE``.

    Raises:
        InputError: A folder without recordings, a file without values, or one given twice.
        FileNotFoundError: There is none.
    """
    runs: dict[str, list[list[DynamicsRow]]] = {}
    seen: set[Path] = set()
    for argument in arguments:
        name, path = split_name(argument)
        file = path / DYNAMICS_FILE if path.is_dir() else path
        if not file.is_file():
            if not path.is_dir():
                raise MissingFileError(f"{path}: no such folder, or dynamics.csv")
            raise InputError(
                f"{path}: nothing was recorded, there is no {DYNAMICS_FILE}. A training records "
                "with dict(type='mmkd.DynamicsHook') among its custom_hooks, or with dynamics=True "
                "of mmkd yolo train"
            )
        if real_path(file) in seen:
            raise InputError(f"{file} is given twice")
        seen.add(real_path(file))
        rows = list(read_dynamics(file))
        if not rows:
            raise InputError(f"{file}: expected a file that a DynamicsHook has written")
        runs.setdefault(name or _called(file), []).append(rows)
    return runs


def _called(file: Path) -> str:
    try:
        return read_work_dir(file.parent).name
    except InputError:  # Of a loop of one's own, there is nothing else.
        name = file.parent.resolve().name if file.name == DYNAMICS_FILE else file.stem
        return SEED.sub("", name)
