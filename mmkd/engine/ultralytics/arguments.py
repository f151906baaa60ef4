"""Ultralytics' training arguments, checked before anything is written or downloaded."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.data.utils import check_det_dataset
from ultralytics.utils import LOGGER, ROOT, YAML
from ultralytics.utils.checks import check_file, check_yolov5u_filename
from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES
from ultralytics.utils.torch_utils import select_device

from mmkd.engine.ultralytics.checkpoint_files import open_model
from mmkd.errors import InputError, InputTypeError, MissingFileError, SettingError

__all__ = ["check_arguments", "checked_model"]


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Raises where Ultralytics would refuse an argument of its training, now or after it has
    scanned the images, or would overlook what is wrong with it.

    Args:
        arguments: Of ``model.train``, without ``model``.

    Raises:
        InputError: An argument, a data set or a device that cannot be used, naming the key.
        FileNotFoundError: A file that one of them names.
    """
    file = arguments.get("cfg")
    if file and not Path(str(file)).is_file():
        raise MissingFileError.at("cfg", f"no such file: {file}")
    given = {key: value for key, value in arguments.items() if key != "cfg"}
    with _silent(), _one_line():
        of_file = YAML.load(file) if file else {}
        get_cfg(overrides={**of_file, **given})
    merged = {**of_file, **given}
    for key, (expected, fits) in _EXPECTED.items():
        value = merged.get(key)
        if value is not None and not fits(value):
            raise InputError.at(key, f"expected {expected}, got {value!r}")
    if merged.get("device") is not None:
        with _silent(), _one_line("device"):
            select_device(merged["device"], verbose=False)
    if merged.get("data") is None and not merged.get("resume"):
        raise InputError.at("data", "it is missing: give data=FILE, a YAML file of a data set")
    if merged.get("data") is not None:
        check_data(merged["data"])


def _is_count(value: Any, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_count, value))


def _is_batch(value: Any) -> bool:
    return value == -1 or 0 < value < 1 or (value >= 1 and value == int(value))


# What Ultralytics does not look at itself, or not before it has begun.
_EXPECTED: dict[str, tuple[str, Any]] = {
    "imgsz": ("a number of pixels, 1 or more", lambda value: _is_count(value, 1)),
    "batch": ("a number of images, -1, or a share of the memory below 1", _is_batch),
    "workers": ("a number, 0 or more", _is_count),
    "close_mosaic": ("a number of epochs, 0 or more", _is_count),
    "time": ("hours, more than 0", lambda value: value > 0),
    "freeze": (
        "a number of layers, or a list of layers",
        lambda value: _is_count(value) or _are_counts(value),
    ),
    "classes": (
        "a class, or a list of classes, by number",
        lambda value: _is_count(value) or _are_counts(value),
    ),
    "project": ("a folder", lambda value: isinstance(value, str | int | Path)),
    "name": ("a name", lambda value: isinstance(value, str | int)),
    "seed": ("a number from 0 to 4294967295", lambda value: _is_count(value) and value < 2**32),
    "task": ("'detect'", lambda value: value == "detect"),
}


def check_data(data: Any) -> None:
    """Raises where a data set is none, or where Ultralytics would fetch or execute something to
    make it: the code that a YAML file may hold under ``download``.

    Raises:
        InputError: It is another thing than a YAML file that is here, or asks for that.
        FileNotFoundError: It, or a folder that it names, is missing.
    """
    if not isinstance(data, str | Path):
        raise InputTypeError.at("data", f"expected a YAML file of a data set, got {data!r}")
    if "://" in str(data) or Path(str(data)).suffix not in (".yaml", ".yml"):
        raise InputError.at(
            "data",
            f"expected a YAML file of a data set that is on this machine, got {data}: download or "
            "unpack it first",
        )
    with _silent(), _one_line("data"):
        file = check_file(str(data))
        content = YAML.load(file)
    try:
        with _silent(), _one_line("data"):
            about = check_det_dataset(file, autodownload=False)
    except MissingFileError:
        if content.get("download"):
            _check_download(data, file, content["download"])
            return
        raise
    for split in ("train", "val"):
        paths = about[split] if isinstance(about[split], list) else [about[split]]
        missing = [path for path in paths if path is None or not Path(path).exists()]
        if missing and content.get("download"):
            _check_download(data, file, content["download"])
        elif missing:
            raise MissingFileError.at("data", f"{data}: no such folder as {split}: {missing[0]}")


def _check_download(data: Any, file: str, source: Any) -> None:
    """Of Ultralytics' own definitions, scripts are as trusted as the rest of it."""
    is_address = isinstance(source, str) and re.fullmatch(r"https?://\S+", source) is not None
    if not is_address and ROOT not in Path(file).resolve().parents:
        raise InputError.at(
            "data",
            f"{data}: images are missing, and what it holds under 'download' is code, which is not "
            "executed: run it yourself if you trust it, and call again",
        )


def checked_model(model: Any) -> YOLO:
    """Ultralytics' model of a definition, a checkpoint, or a name of its own.

    Raises:
        InputError: Something else, or a file that cannot be read.
        FileNotFoundError: No such file.
    """
    if not isinstance(model, str | Path):
        raise InputTypeError.at(
            "model", f"expected a definition (yolov5s.yaml) or a .pt file, got {model!r}"
        )
    file = Path(model)
    is_there = file.exists() or "://" in str(model)
    is_known = check_yolov5u_filename(file.name, verbose=False) in GITHUB_ASSETS_NAMES
    if file.suffix == ".pt" and not is_there and not is_known:
        raise MissingFileError.at("model", f"no such file: {model}")
    with _silent(), _one_line("model", f"{model} cannot be opened: "):
        opened = open_model(model)
    if not isinstance(opened.model, nn.Module):
        raise InputError.at(
            "model", f"expected a definition (yolov5s.yaml) or a .pt file, got {model}"
        )
    return opened


@contextlib.contextmanager
def _one_line(key: str | None = None, prefix: str = "") -> Iterator[None]:
    """Makes any error one line of a user's: Ultralytics' own are of many kinds and lines."""
    try:
        yield
    except SettingError as error:
        kind = MissingFileError if isinstance(error, MissingFileError) else InputError
        raise (kind.at(key, str(error)) if key else kind(str(error))) from error
    except Exception as error:
        plain = re.sub(r"\x1b\[[0-9;]*m|[\u2600-\u27bf\ufe0f]", "", str(error) or repr(error))
        # A second line may tell what is missing; what follows is general help.
        lines = [" ".join(line.split()) for line in plain.splitlines() if line.strip()]
        kind = MissingFileError if isinstance(error, FileNotFoundError) else InputError
        message = prefix + " ".join(lines[:2])
        raise (kind.at(key, message) if key else kind(message)) from error


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keeps back what Ultralytics prints where it refuses something: its own help."""
    level = LOGGER.level
    LOGGER.setLevel("CRITICAL")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        LOGGER.setLevel(level)
