"""Config files, as MMEngine reads them, for settings of any trainer."""

from __future__ import annotations

import copy
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from torch import nn

from mmkd.configs import config_path
from mmkd.engine.mmengine.safe_yaml import load_config
from mmkd.errors import InputError, MissingFileError
from mmkd.extras import extra

__all__ = ["PACKAGES", "check_scope", "open_config", "read_config", "with_options"]

_SUFFIXES = (".py", ".json", ".yaml", ".yml")
# Packages that give their scope, and mmkd's extra, their name.
PACKAGES = ("mmdet", "mmpretrain")


def _with_names_of_mmkd(stock: Callable[[str, str], Any]) -> staticmethod:
    def get_path(name: str, filename: str) -> Any:
        return stock(config_path(name), filename)

    return staticmethod(get_path)


# So a `_base_` may be an `mmkd::` name. A line in MMEngine's own table of packages would not do: it
# would look for all parts of such a config in a scope `mmkd`.
Config._get_cfg_path = _with_names_of_mmkd(Config._get_cfg_path)


def open_config(name: str | Path, options: Sequence[str] = ()) -> Config:
    """A config by its file's path, or as ``'package::path'`` of mmkd's or an installed package's.

    Args:
        name: Path or name.
        options: ``key=value`` settings that replace the config's, as MMEngine's scripts take them.

    Raises:
        InputError: An option is something else, or the config cannot be read, and why.
        MissingFileError: No such config.
    """
    # argparse takes what begins with a dash for an option of its own.
    for option in options:
        if option.startswith(("-", "=")) or not option.partition("=")[2]:
            raise InputError(f"expected key=value, got {option!r}")
    file = _path_of(str(name))
    parser = ArgumentParser()
    parser.add_argument("--options", nargs="+", action=DictAction, default={})
    try:
        config = load_config(file)
        if options:
            config.merge_from_dict(parser.parse_args(["--options", *options]).options)
    # A config is a program: anything can go wrong in it.
    except Exception as error:
        said = str(error) or type(error).__name__
        raise InputError(f"{name} cannot be read as a config: {said}") from error
    modules = {k: each for k, each in _entries(config._cfg_dict) if isinstance(each, nn.Module)}
    if modules:
        # Where it is used, and not a name that the file has for it.
        key = max(modules, key=lambda path: path.count("."))
        raise InputError.at(
            key,
            f"{name} holds a {type(modules[key]).__name__}, and a config holds plain values, for "
            "the Runner writes it down: give a teacher's config and checkpoint, or add the hook in "
            "Python, runner.register_hook(DistillHook(teacher=dict(module=...)))",
        )
    return config


def _entries(settings: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All within nested dicts and lists, by their place."""
    inner: Any = {}
    if isinstance(settings, Mapping):
        inner = settings
    elif isinstance(settings, list | tuple):
        inner = dict(enumerate(settings))
    else:
        yield path, settings
    for key, value in inner.items():
        yield from _entries(value, f"{path}.{key}".lstrip("."))


def _path_of(name: str) -> str:
    path = config_path(name)
    try:
        file, _ = Config._get_cfg_path(path, "")
        if not Path(file).is_file():
            raise FileNotFoundError("no such file")
        if not file.endswith(_SUFFIXES):
            raise ValueError(f"it ends in none of {', '.join(_SUFFIXES)}")
    # MMEngine asserts that it knows the package.
    except (AssertionError, FileNotFoundError, ImportError, ValueError) as error:
        raise MissingFileError(
            f"no config {name!r} ({error}): expected a file's path or 'package::path', such as "
            "'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'"
        ) from error
    return file


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
    config = Config(_with_room(settings, options))
    config.merge_from_dict(dict(options))
    return config.to_dict()


def _with_room(settings: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without the numbers that nested ones are to replace (``weight=3`` by
    ``weight.share=0.3``): MMEngine would not."""
    found = copy.deepcopy(dict(settings))
    for option, value in options.items():
        inside: Any = found
        *keys, last = option.split(".")
        for key in [*keys, *([last] if isinstance(value, Mapping) else [])]:
            if not isinstance(inside, dict) or key not in inside:
                break
            if isinstance(inside[key], int | float):
                del inside[key]
                break
            inside = inside[key]
    return found


def check_scope(scope: str | None) -> None:
    """Imports the package of a config's ``default_scope``.

    MMEngine itself only warns where it is missing, and then knows no class of the package's.

    Raises:
        MissingExtraError: It is not installed.
    """
    if scope in PACKAGES:
        with extra(scope, f"a config of {scope}'s"):
            import_module(scope)
