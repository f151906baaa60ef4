"""Files of trained YOLO detectors: where they lie, and how they are read without executing them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn
from ultralytics import YOLO
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import LOGGER, SETTINGS
from ultralytics.utils.checks import check_file, check_yolov5u_filename
from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset

from mmkd.checkpoint import read_weights
from mmkd.checkpoint.downloads import downloaded, is_address
from mmkd.checkpoint.files import regular_file
from mmkd.checkpoint.pickled import HoldsMoreError
from mmkd.engine.ultralytics.architecture import is_original
from mmkd.engine.ultralytics.safe_loading import SWITCH, is_safe, switched
from mmkd.errors import InputError

__all__ = ["by_another_name", "check_source", "execute", "local_file", "open_model", "readable"]

# Of Ultralytics' own storages.
_FETCHED = ("ul://", "gs://")


def check_source(source: str) -> None:
    """Raises where it is plain to see that no ``.pt`` file can be had by it. Nothing is downloaded.

    Raises:
        FileNotFoundError: No such file.
        ValueError: A file of another kind.
    """
    file = Path(source)
    if file.suffix in (".yaml", ".yml"):
        raise ValueError(
            f"{file} defines a model without trained weights, which has nothing to teach. Give a "
            "trained .pt file."
        )
    if is_address(source):
        return
    if file.suffix != ".pt":
        raise ValueError(f"expected a .pt file of Ultralytics', got {file}")
    if not file.expanduser().exists() and not _is_theirs(file.name):
        raise FileNotFoundError(f"no such file: {source}")


def _is_theirs(name: str) -> bool:
    return check_yolov5u_filename(name, verbose=False) in GITHUB_ASSETS_NAMES


def local_file(source: str) -> Path:
    """Its file on this machine; what is elsewhere is downloaded, once.

    Args:
        source: A path; ``https://...``, which goes to torch's cache; an address of Ultralytics'
            storages (``ul://``, ``gs://``); or one of the names that it publishes
            (``'yolov5su.pt'``).

    Raises:
        FileNotFoundError: No such file.
        ValueError: It cannot be downloaded, or is no regular file.
    """
    if not is_address(source):
        # By its own name, Ultralytics may look for another file ('yolov5mu.pt').
        if Path(source).expanduser().exists() or not _is_theirs(Path(source).name):
            return regular_file(source)
    elif not source.startswith(_FETCHED):
        return downloaded(source)
    try:
        if is_address(source):
            return Path(check_file(source, download_dir=SETTINGS["weights_dir"]))
        return Path(attempt_download_asset(source))
    except Exception as error:  # Each way to fetch fails in its own.
        raise ValueError(
            f"{source} could not be downloaded: {str(error).partition(chr(10))[0]}. Check the name "
            "and the network, or give the path of a file"
        ) from error


@contextmanager
def by_another_name(file: Path) -> Iterator[Path]:
    """By its own, Ultralytics may look for another file ('yolov5mu.pt'), or remove one that it
    cannot read and download it anew."""
    with TemporaryDirectory() as folder:
        link = Path(folder) / "mmkd_u.pt"
        link.symlink_to(file.resolve())
        yield link


def execute(file: Path) -> nn.Module:
    """The model as it was pickled, whose code runs.

    Raises:
        ValueError: It is no checkpoint of Ultralytics'.
    """
    LOGGER.warning(f"{file}: executing what is pickled in it (allow_pickle=True)")
    try:
        with switched(False), by_another_name(file) as link:
            return load_checkpoint(link)[0]
    except Exception as error:  # A file of another kind fails in any way.
        raise ValueError(
            f"{file} is no checkpoint of Ultralytics' that can be loaded: {error}"
        ) from error


def open_model(source: str | Path) -> YOLO:
    """What ``YOLO(source)`` gives, with an error of one line for a file that Ultralytics refuses.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is no checkpoint of Ultralytics', or holds more than such a one and is not
            executed.
    """
    named = Path(str(source))
    if named.suffix != ".pt" or is_address(str(source)) or not named.exists():
        return YOLO(source)
    file = regular_file(source)
    with readable(file), by_another_name(file) as link:
        if is_safe():
            # Ultralytics builds what it allows with whatever arguments the file gives.
            read_weights(file)
        model = YOLO(link)
    # What it writes down of the file is the file's name.
    model.ckpt_path = model.model.pt_path = model.overrides["model"] = model.model_name = str(file)
    return model


@contextmanager
def readable(file: Path) -> Iterator[None]:
    """Around Ultralytics' reading of a file: says in one line why it refuses one.

    Raises:
        InputError: It does.
    """
    try:
        yield
    except Exception as error:  # A file of another kind fails in any way.
        raise InputError(_why_not(file, error)) from error


def _why_not(file: Path, error: Exception) -> str:
    damaged = (
        f"{file} cannot be read as a checkpoint of Ultralytics', being damaged or something else "
        f"({type(error).__name__})"
    )
    try:
        network: Any = read_weights(file).network
    except HoldsMoreError as reason:
        if not is_safe():
            return damaged
        return f"{str(reason).partition(' If you trust it')[0]} {_ADVICE}"
    except ValueError:
        return damaged
    if network is not None and is_original(network):
        return (
            f"{file} is a checkpoint of the YOLOv5 repository, whose head Ultralytics cannot run: "
            "it may teach (teacher=), or start a student of Ultralytics' definition "
            "(model=yolov5n.yaml pretrained=)"
        )
    if not is_safe():
        return damaged
    return f"{file} holds more than Ultralytics' own layers, and is not executed. {_ADVICE}"


_ADVICE = f"If you trust it, {SWITCH}=0 in the environment lets such files run their code"
