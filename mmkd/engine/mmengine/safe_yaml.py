"""Config files whose YAML is data: MMEngine's own reader calls whatever a tag of it names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from mmengine.config import Config
from mmengine.fileio.handlers import YamlHandler, file_handlers

from mmkd.errors import InputError

__all__ = ["load_config", "yaml_as_data"]

_DATA = (".yaml", ".yml", ".json")


class _DataLoader(yaml.SafeLoader):
    """Builds plain values alone, and tuples, which MMEngine writes into YAML by a tag."""


_DataLoader.add_constructor(
    "tag:yaml.org,2002:python/tuple",
    lambda loader, node: tuple(loader.construct_sequence(node, deep=True)),
)


class _DataHandler(YamlHandler):
    def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
        return yaml.load(file, Loader=_DataLoader)


@contextmanager
def yaml_as_data() -> Iterator[None]:
    """MMEngine reads all YAML as plain values, that of inherited files too."""
    before = {name: file_handlers[name] for name in ("yaml", "yml")}
    file_handlers.update(dict.fromkeys(before, _DataHandler()))
    try:
        yield
    finally:
        file_handlers.update(before)


def load_config(file: str | Path, *, import_custom_modules: bool = True) -> Config:
    """A config file and those that it inherits from. Python files are executed, YAML never.

    Args:
        file: Python, YAML or JSON.
        import_custom_modules: Whether to import what it names as ``custom_imports``.

    Raises:
        FileNotFoundError: No such file.
        InputError: YAML or JSON that is damaged, holds something else than settings, or names
            more than plain values by tags.
    """
    try:
        with yaml_as_data():
            return Config.fromfile(str(file), import_custom_modules=import_custom_modules)
    except yaml.YAMLError as error:
        raise InputError(
            f"{file}, or a file that it inherits from, is no YAML of plain values: "
            f"{_in_one_line(error)}"
        ) from error
    # What MMEngine makes of a list or a number in place of settings.
    except (AttributeError, TypeError) as error:
        if Path(file).suffix not in _DATA:
            raise
        raise InputError(
            f"{file}, or a file that it inherits from: expected settings, a value by each name, "
            f"found something else ({error})"
        ) from error


def _in_one_line(error: yaml.YAMLError) -> str:
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    mark = getattr(error, "problem_mark", None)
    return f"{problem} (line {mark.line + 1})" if mark is not None else problem
