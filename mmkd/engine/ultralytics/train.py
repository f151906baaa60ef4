"""Training from settings: Ultralytics' own arguments, a teacher and terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ultralytics import YOLO
from ultralytics.cfg import parse_key_value_pair

from mmkd.custom_imports import import_again, import_custom
from mmkd.engine.mmengine.config_files import read_config, with_options
from mmkd.engine.ultralytics.callback import DistillCallback

__all__ = ["add_imports", "prepare", "read_settings"]


def read_settings(config: str | Path | None, arguments: Sequence[str] = ()) -> dict[str, Any]:
    """Reads a config of ``configs/yolo`` and arguments that come before it.

    Args:
        config: YAML file of Ultralytics' training arguments, ``teacher``, ``terms`` and
            ``custom_imports``. It may name others as ``_base_``. Its ``project`` counts from the
            current folder, as ``teacher`` does, and not from the ``runs_dir`` of Ultralytics'
            settings.
        arguments: ``key=value`` as Ultralytics' command takes them; a dotted key reaches into
            ``terms`` (``terms.backbone.weight=3``). ``resume`` alone means ``resume=True``.

    Raises:
        ValueError: An argument that is no ``key=value``.
        FileNotFoundError: No such config.
    """
    settings = read_config(config) if config is not None else {}
    if settings.get("project"):
        settings["project"] = str(Path(settings["project"]).resolve())
    given = {}
    for argument in arguments:
        if argument == "resume":
            given["resume"] = True
            continue
        key, separator, value = argument.partition("=")
        if not separator or not key or not value:
            raise ValueError(f"expected key=value, got {argument!r}")
        given[key] = parse_key_value_pair(argument)[1]
    return with_options(settings, given)


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
        ValueError: ``model`` or ``teacher`` is missing, ``terms`` come without a teacher, or
            ``custom_imports`` cannot be imported.
    """
    arguments = dict(settings)
    imported = import_custom(arguments.pop("custom_imports", None))
    for key in ("model", "teacher"):
        if key not in arguments:
            raise ValueError(f"{key} is missing: give {key}=..., as in model=yolov5s.yaml")
    model = YOLO(arguments.pop("model"))
    teacher, terms = arguments.pop("teacher"), arguments.pop("terms", None)
    if teacher is not None:
        DistillCallback(teacher, terms).attach(model)
    elif terms:
        raise ValueError("terms need a teacher, and teacher is None")
    if imported:
        model.add_callback("on_pretrain_routine_start", import_again(imported))
    return model, arguments
