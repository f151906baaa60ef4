"""Config files, as MMEngine reads them, for settings of any trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmkd.configs import config_path
from mmkd.engine.mmengine.safe_yaml import load_config
from mmkd.errors import InputError

__all__ = ["open_config", "read_config", "with_options"]


def _with_names_of_mmkd(stock: Callable[[str, str], Any]) -> staticmethod:
    def get_path(name: str, filename: str) -> Any:
        return stock(config_path(name), filename)

    return staticmethod(get_path)


# So a `_base_` may be an `mmkd::` name. A line in MMEngine's own table of packages would not do: it
# would look for all parts of such a config in a scope `mmkd`.
Config._get_cfg_path = _with_names_of_mmkd(Config._get_cfg_path)


def open_config(name: str | Path) -> Config:
    """A config by its file's path, or as ``'package::path'`` of mmkd's or an installed package's.

    Raises:
        InputError: It cannot be read, and why.
    """
    try:
        file, _ = Config._get_cfg_path(str(name), "")
        return load_config(file)
    # MMEngine asserts that it knows the package.
    except (AssertionError, FileNotFoundError, ImportError, ValueError) as error:
        raise InputError(
            f"cannot read {str(name)!r} ({error}): expected a config file's path or "
            "'package::path', such as 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'"
        ) from error


def read_config(file: str | Path) -> dict[str, Any]:
    """The settings of a YAML, JSON or Python file and of those that it names as ``_base_``.

    The file may be one of mmkd's own, as ``'mmkd::yolo/...'``. What it names as ``custom_imports``
    is not imported.

    Raises:
        FileNotFoundError: No such file.
        InputError: YAML that is more than plain values.
    """
    return load_config(config_path(str(file)), import_custom_modules=False).to_dict()


def with_options(settings: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in which options have replaced some; a dotted key reaches into nested ones."""
    config = Config(dict(settings))
    config.merge_from_dict(dict(options))
    return config.to_dict()
