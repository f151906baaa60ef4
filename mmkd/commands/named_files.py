"""Files that are given with a name: ``NAME=FILE``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmkd.errors import InputError
from mmkd.input_files import real_path

__all__ = ["CHECKPOINTS", "NamedFile", "parse_pairs", "parse_runs", "split_name"]

CHECKPOINTS = (".pth", ".pt")
# What detection files and checkpoints are called besides their run's name.
_SUFFIXES = (".bbox.json", ".json", *CHECKPOINTS)
# What trainers call files alike in each work dir.
_COMMON = re.compile(r"detections|predictions|last|best|epoch_\d+|iter_\d+|best_.*")


@dataclass(frozen=True)
class NamedFile:
    """A detection file or a checkpoint, and its run's name in tables."""

    name: str
    file: Path


def parse_runs(arguments: Sequence[str]) -> list[NamedFile]:
    """Reads ``FILE`` and ``NAME=FILE``.

    Without a name, a run is called as its file; files that trainers name alike in each work dir
    are called as that folder, less ``_seed<number>``.

    Raises:
        InputError: A file is given twice, or files that are not known for seeds get one name.
    """
    runs: dict[str, list[NamedFile]] = {}
    unclear: set[str] = set()
    for argument in arguments:
        given, path = split_name(argument)
        called, is_seed = _called(path)
        name = called if given is None else given
        runs.setdefault(name, []).append(NamedFile(name, path))
        if given is None and not is_seed:
            unclear.add(name)
    for name, members in runs.items():
        files = ", ".join(str(each.file) for each in members)
        if len({real_path(each.file) for each in members}) < len(members):
            raise InputError(f"{name}: a file is given twice: {files}")
        if len(members) > 1 and name in unclear:
            raise InputError(
                f"{files} would all be called {name!r}, and taken for seeds of one run: give "
                "NAME=FILE, with one name if they are"
            )
    return [each for members in runs.values() for each in members]


def _called(path: Path) -> tuple[str, bool]:
    """A file's run, and whether its folder tells that it is a seed of it."""
    name = next((path.name.removesuffix(s) for s in _SUFFIXES if path.name.endswith(s)), path.stem)
    if not _COMMON.fullmatch(name):
        return name, False
    # Ultralytics keeps its checkpoints one folder further down.
    folder = path.parent.parent if path.parent.name == "weights" else path.parent
    run = re.sub(r"_seed\d+$", "", real_path(folder).name)
    return run or name, run != real_path(folder).name


def parse_pairs(option: str, form: str, arguments: Sequence[str]) -> dict[str, Path]:
    """Reads ``NAME=FILE``.

    Args:
        option: For messages, as ``form``.
        form: What is expected.
        arguments: One or more.

    Raises:
        InputError: Anything else.
    """
    pairs = {}
    for argument in arguments:
        name, separator, file = argument.partition("=")
        if not separator or not name or not file:
            raise InputError(f"--{option}: expected {form}, got {argument!r}")
        pairs[name] = Path(file)
    return pairs


def split_name(argument: str) -> tuple[str | None, Path]:
    """Reads ``PATH`` and ``NAME=PATH``; a path that exists may hold an equals sign."""
    name, separator, path = argument.partition("=")
    if separator and name and not Path(argument).exists():
        return name, Path(path)
    return None, Path(argument)
