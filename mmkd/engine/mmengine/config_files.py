"""Config files, as MMEngine reads them, for settings of any trainer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

__all__ = ["open_config", "read_config", "with_options"]


def open_config(name: str | Path) -> Config:
    """A config by its file's path, or as ``'package::path'`` of an installed package's.

    Raises:
        ValueError: It cannot be read, and why.
    """
    try:
        if "::" in str(name):
            from mmengine.hub import get_config

            return get_config(str(name))
        return Config.fromfile(name)
    except (FileNotFoundError, ImportError, ValueError) as error:
        raise ValueError(
            f"cannot read {str(name)!r} ({error}): expected a config file's path or "
            "'package::path', such as 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'"
        ) from error


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
