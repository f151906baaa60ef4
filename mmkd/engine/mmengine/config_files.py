"""Config files, as MMEngine reads them, for settings of any trainer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

__all__ = ["read_config", "with_options"]


def read_config(file: str | Path) -> dict[str, Any]:
    """The settings of a YAML, JSON or Python file and of those that it names as ``_base_``.

    What it names as ``custom_imports`` is not imported.

    Raises:
        FileNotFoundError: No such file.
    """
    return Config.fromfile(str(file), import_custom_modules=False).to_dict()


def with_options(settings: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in which options have replaced some; a dotted key reaches into nested ones."""
    config = Config(dict(settings))
    config.merge_from_dict(dict(options))
    return config.to_dict()
