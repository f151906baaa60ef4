"""The configs that ship with mmkd, by names such as ``mmkd::classification/digits/...``."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from mmkd.errors import MissingFileError

__all__ = ["config_file", "config_path"]

_PACKAGE = Path(__file__).resolve().parent
# An installed wheel carries them inside the package, a checkout beside it.
_FOLDERS = (_PACKAGE / ".mim" / "configs", _PACKAGE.parent / "configs")
_PREFIX = "mmkd::"


def config_file(name: str) -> str:
    """The path of a config, such as ``'detection/digits/faster-rcnn_r18-w16_digits.py'``.

    Raises:
        MissingFileError: No such config; with the names that are closest.
    """
    for folder in _FOLDERS:
        if (folder / name).is_file():
            return str(folder / name)
    close = get_close_matches(name, _names(), n=3, cutoff=0.5)
    hint = f"; the closest are {', '.join(map(repr, close))}" if close else ""
    raise MissingFileError(f"mmkd has no config {name!r}{hint}")


def config_path(name: str) -> str:
    """The path behind ``'mmkd::<name of a config>'``; any other text as it is.

    Raises:
        MissingFileError: See :func:`config_file`.
    """
    return config_file(name.removeprefix(_PREFIX)) if name.startswith(_PREFIX) else name


def _names() -> list[str]:
    return [
        file.relative_to(folder).as_posix()
        for folder in _FOLDERS
        for file in folder.rglob("*")
        if file.suffix in (".py", ".yaml")
    ]
