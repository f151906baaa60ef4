"""A user's own modules, imported before anything is built: they register losses and networks."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module, invalidate_caches
from pathlib import Path
from types import ModuleType
from typing import Any

from mmkd.errors import InputError

__all__ = [
    "import_again",
    "import_custom",
    "import_modules",
    "imported_modules",
    "source_files",
]

_KEYS = {"imports", "allow_failed_imports"}
# By the last call of import_modules: what processes that this one starts must import too.
_imported: list[str] = []


def import_modules(names: Sequence[str]) -> None:
    """Imports what ``--import`` names, for this process and those that a comparison starts.

    The current folder becomes importable, as with ``python -m``; so does a given file's folder,
    as with ``python FILE``.

    Args:
        names: Dotted names of modules, or paths of ``.py`` files.

    Raises:
        InputError: One cannot be imported, and why.
    """
    _make_importable(Path.cwd())
    for name in names:
        _import("--import", name)
    _imported[:] = map(_from_anywhere, names)


def imported_modules() -> list[str]:
    """What the last call of :func:`import_modules` in this process has imported."""
    return list(_imported)


def import_custom(settings: Any) -> list[str]:
    """Imports what a config's ``custom_imports`` names.

    Args:
        settings: As in MMEngine's configs: ``dict(imports=[...], allow_failed_imports=False)``, or
            None.

    Returns:
        The names of all that was imported.

    Raises:
        InputError: The settings are something else, or name what cannot be imported.
    """
    if settings is None:
        return []
    names = _names_in(settings)
    _make_importable(Path.cwd())
    found = []
    for name in names:
        try:
            _import("custom_imports", name)
        except InputError as error:
            if not settings.get("allow_failed_imports"):
                raise
            print(f"warning: {error}", file=sys.stderr)
        else:
            found.append(name)
    return found


def _names_in(settings: Any) -> Sequence[str]:
    if isinstance(settings, Mapping) and not set(settings) - _KEYS:
        imports = settings.get("imports")
        names = [imports] if isinstance(imports, str) else imports
        if isinstance(names, Sequence) and all(isinstance(name, str) for name in names):
            return names
    raise InputError(f"custom_imports: expected dict(imports=[...]), got {settings!r}")


def import_again(names: Sequence[str]) -> Callable[..., None]:
    """A callback that does nothing but import modules wherever it is unpickled.

    Args:
        names: See :func:`import_modules`.
    """
    import_custom(dict(imports=names))
    return _ImportedAgain([_from_anywhere(name) for name in names])


class _ImportedAgain:
    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def __call__(self, *_: Any) -> None:
        """Nothing is left to do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return import_again, (self._names,)


def source_files(names: Sequence[str]) -> list[Path]:
    """The files of modules that were imported."""
    modules = [_module_name(name) for name in names]
    files = [getattr(sys.modules.get(module), "__file__", None) for module in modules]
    return [Path(file) for file in files if file]


def _is_file(name: str) -> bool:
    return name.endswith(".py")


def _from_anywhere(name: str) -> str:
    """Other processes may be in another folder."""
    return str(Path(name).resolve()) if _is_file(name) else name


def _module_name(name: str) -> str:
    return Path(name).stem if _is_file(name) else name


def _make_importable(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    # A file may be younger than Python's last look into its folder.
    invalidate_caches()


def _import(option: str, name: str) -> None:
    where = f"{option} {name}"
    if _is_file(name):
        _check_file(where, Path(name))
        _make_importable(Path(name).resolve().parent)
    try:
        module = import_module(_module_name(name))
    # What a user's module does when it is imported can fail in any way.
    except Exception as error:
        raise InputError(f"{where}: {_reason(error, _module_name(name))}") from error
    if _is_file(name):
        _check_is_of(where, module, Path(name))


def _check_file(where: str, file: Path) -> None:
    if not file.is_file():
        raise InputError(f"{where}: no such file in {Path.cwd()}")
    if not file.stem.isidentifier():
        raise InputError(f"{where}: {file.stem!r} cannot name a module: rename the file")


def _check_is_of(where: str, module: ModuleType, file: Path) -> None:
    found = getattr(module, "__file__", None)
    if found is None or not os.path.samefile(found, file):
        raise InputError(
            f"{where}: the module {file.stem!r} is {found or 'a part of Python'}: rename the file"
        )


def _reason(error: Exception, module: str) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]:
        return (
            f"no module {module!r}, neither in the current folder, {Path.cwd()}, nor installed: "
            "give a module's dotted name or the path of a .py file"
        )
    frames = traceback.extract_tb(error.__traceback__)
    inside = [each for each in frames if not each.filename.startswith("<frozen")]
    place = f" in {inside[-1].filename}, line {inside[-1].lineno}" if inside else ""
    return f"{type(error).__name__}{place}: {error}"
