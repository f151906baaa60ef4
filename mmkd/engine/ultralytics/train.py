"""Training from settings: Ultralytics' own arguments, a teacher and terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ultralytics import YOLO
from ultralytics.cfg import parse_key_value_pair

from mmkd.configs import config_path
from mmkd.custom_imports import import_again, import_custom
from mmkd.engine.mmengine.config_files import read_config, with_options
from mmkd.engine.ultralytics.arguments import check_arguments, checked_model
from mmkd.engine.ultralytics.callback import DistillCallback
from mmkd.engine.ultralytics.resume import check_plain_resume
from mmkd.engine.ultralytics.safe_start import SafeStart, check_start
from mmkd.errors import InputError, MissingFileError, naming

__all__ = ["OWN_KEYS", "add_imports", "prepare", "read_settings"]


# Beside the teacher, what is not Ultralytics'.
OWN_KEYS = ("terms", "dynamics")


def read_settings(config: str | Path | None, arguments: Sequence[str] = ()) -> dict[str, Any]:
    """Reads a config of ``configs/yolo`` and arguments that come before it.

    Args:
        config: YAML file of Ultralytics' training arguments, ``teacher``, ``terms``, ``dynamics``
            and ``custom_imports``. It may name others as ``_base_``. Its ``project`` counts from
            the current folder, as ``teacher`` does, and not from the ``runs_dir`` of Ultralytics'
            settings.
        arguments: ``key=value`` as Ultralytics' command takes them; a dotted key reaches into
            ``terms`` (``terms.backbone.weight=3``). ``resume`` alone means ``resume=True``.

    Raises:
        InputError: An argument that is no ``key=value``, or a file that holds no settings.
        FileNotFoundError: No such config.
    """
    settings = _read(config) if config is not None else {}
    if isinstance(settings.get("project"), str):
        settings["project"] = str(Path(settings["project"]).resolve())
    given = {}
    for argument in arguments:
        if argument == "resume":
            given["resume"] = True
            continue
        key, separator, value = argument.partition("=")
        if not separator or not key or not value:
            raise InputError(f"expected key=value, got {argument!r}")
        given[key] = parse_key_value_pair(argument)[1]
    try:
        return with_options(settings, given)
    # Of many kinds, where a dotted key reaches into what is no dict.
    except Exception as error:
        raise InputError(f"{' '.join(arguments)} does not fit the settings: {error}") from error


def _read(config: str | Path) -> dict[str, Any]:
    if not Path(config_path(str(config))).is_file():
        raise MissingFileError(f"no config {config}")
    try:
        return read_config(config)
    # The reader's errors are of many kinds and lines.
    except Exception as error:
        reason = " ".join(str(error).split()) or repr(error)
        raise InputError(f"{config} cannot be read as a config: {reason}") from error


def add_imports(settings: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The settings, with further modules among their ``custom_imports``.

    Args:
        settings: From :func:`read_settings`.
        names: Dotted names, or paths of ``.py`` files.
    """
    if not names:
        return dict(settings)
    custom = dict(settings.get("custom_imports") or {})
    own = custom.get("imports") or []
    custom["imports"] = [*([own] if isinstance(own, str) else own), *names]
    return {**settings, "custom_imports": custom}


def prepare(settings: Mapping[str, Any]) -> tuple[YOLO, dict[str, Any]]:
    """The model, with its distillation attached, and the arguments of its ``train``.

    The settings' ``custom_imports`` are imported first, here and in the processes that Ultralytics
    starts for several GPUs.

    Args:
        settings: From :func:`read_settings`. ``teacher=None`` asks for plain training.

    Raises:
        ValueError: ``model`` or ``teacher`` is missing, ``terms`` come without a teacher,
            ``custom_imports`` cannot be imported, or what cannot be trained with, naming the key.
        FileNotFoundError: A file that they name.
    """
    arguments = dict(settings)
    imported = import_custom(arguments.pop("custom_imports", None))
    for key in ("model", "teacher"):
        if key not in arguments:
            raise InputError(f"{key} is missing: give {key}=..., as in model=yolov5s.yaml")
    name, teacher = (arguments.pop(key, None) for key in ("model", "teacher"))
    own = {key: value for key in OWN_KEYS if (value := arguments.pop(key, None))}
    if teacher is None and own:
        raise InputError(f"{' and '.join(own)} need a teacher, and teacher is None")
    callback = None if teacher is None else DistillCallback(teacher, **own)
    check_arguments(arguments)
    model = checked_model(name)
    for key in ("pretrained", "resume"):
        if isinstance(arguments.get(key), str):
            with naming(key):
                check_start(arguments[key], model)
    if callback is not None:
        callback.attach(model)
    else:
        check_plain_resume(model, arguments.get("resume"))
        arguments["trainer"] = SafeStart
    if imported:
        model.add_callback("on_pretrain_routine_start", import_again(imported))
    return model, arguments
