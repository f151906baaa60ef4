"""Checkpoints by the addresses and short forms that MMEngine's configs know."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from mmengine import fileio
from mmengine.runner import checkpoint as zoo

from mmkd.checkpoint import CheckpointWeights, read_weights
from mmkd.checkpoint.downloads import cached_name, downloaded, is_address
from mmkd.errors import did_you_mean

__all__ = ["check_address", "local_file", "read_weights_of"]


def _openmmlab() -> dict[str, str]:
    addresses = zoo.get_external_models()
    renamed = zoo.get_deprecated_model_names()
    # Of some that were renamed, no address is left.
    return {
        **addresses,
        **{old: addresses[new] for old, new in renamed.items() if new in addresses},
    }


_TABLES: Mapping[str, Callable[[], dict[str, str]]] = {
    "torchvision": lambda: zoo.get_torchvision_models(),
    "modelzoo": lambda: zoo.get_torchvision_models(),
    "open-mmlab": _openmmlab,
    "openmmlab": _openmmlab,
    "mmcls": lambda: zoo.get_mmcls_models(),
}
_FETCHED = ("http", "https")


def check_address(checkpoint: str) -> None:
    """Raises where it is plain to see that nothing can be had by it. Nothing is downloaded.

    Raises:
        FileNotFoundError: No such file.
        ValueError: A short form that stands for nothing.
    """
    scheme, name = _parts(checkpoint)
    if scheme in _TABLES:
        _looked_up(scheme, name)
    elif not scheme and not Path(checkpoint).expanduser().exists():
        raise FileNotFoundError(
            f"no such file: {checkpoint}. Train the teacher first, or name another file"
        )


def local_file(checkpoint: str) -> Path:
    """Its file on this machine; what is elsewhere is downloaded, once.

    Args:
        checkpoint: A path; ``https://...``; ``torchvision://resnet50``, ``open-mmlab://...`` and
            whatever else MMEngine has a table of; or an address of a storage of MMEngine's
            (``s3://...``).

    Raises:
        ValueError: It stands for nothing, or cannot be downloaded.
    """
    scheme, name = _parts(checkpoint)
    if scheme in _TABLES:
        address = _looked_up(scheme, name)
        if not is_address(address):
            # An entry of the user's own, beside their table.
            return Path(zoo._get_mmengine_home()) / address
        return downloaded(address)
    if scheme in _FETCHED:
        return downloaded(checkpoint)
    if scheme:
        return _from_storage(checkpoint)
    return Path(checkpoint)


def read_weights_of(checkpoint: str, *, allow_pickle: bool = False) -> CheckpointWeights:
    """As :func:`mmkd.checkpoint.read_weights`, by whatever :func:`local_file` takes.

    Args:
        checkpoint: ``mmcls://...`` stands for the weights of a classifier's backbone alone.
        allow_pickle: Also execute what is pickled in it.

    Raises:
        FileNotFoundError: No such file.
        ValueError: See there.
    """
    source = read_weights(local_file(checkpoint), allow_pickle=allow_pickle)
    if not checkpoint.startswith("mmcls://"):
        return source
    part = "backbone."
    weights = {k.removeprefix(part): v for k, v in source.weights.items() if k.startswith(part)}
    return replace(source, weights=weights)


def _parts(checkpoint: str) -> tuple[str, str]:
    if not is_address(checkpoint):
        return "", checkpoint
    scheme, _, name = checkpoint.partition("://")
    return scheme.lower(), name


def _looked_up(scheme: str, name: str) -> str:
    table = _TABLES[scheme]()
    if name not in table:
        raise ValueError(f"{scheme}:// has no {name!r}{did_you_mean(name, table)}")
    return table[name]


def _from_storage(address: str) -> Path:
    folder = Path(zoo._get_mmengine_home()) / "checkpoints"
    file = folder / cached_name(address, os.path.basename(address))
    if file.is_file():
        return file
    part = file.with_name(f"{file.name}.part{os.getpid()}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fileio.get_file_backend(address).copyfile_to_local(address, part)
        part.replace(file)
    except Exception as error:  # Each storage fails in its own way.
        part.unlink(missing_ok=True)
        known = ", ".join(f"{each}://" for each in (*_FETCHED, *_TABLES))
        raise ValueError(
            f"{address} could not be fetched ({type(error).__name__}: {error}). Give a path, or an "
            f"address by {known} or a storage that MMEngine knows"
        ) from error
    return file
