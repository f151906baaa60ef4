"""Checkpoints by address, in the folder where torch keeps what it downloads."""

from __future__ import annotations

import sys
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlparse

import torch

__all__ = ["downloaded", "is_address"]


def is_address(source: str) -> bool:
    """Whether it names something elsewhere (``https://...``), and no path."""
    return "://" in source


def downloaded(address: str) -> Path:
    """The file of an address, downloaded where torch's cache has none of its name yet.

    ``TORCH_HOME`` says where that cache is, as for torch's own downloads. Nothing of the file is
    read.

    Args:
        address: ``http://`` or ``https://``.

    Raises:
        ValueError: It cannot be downloaded.
    """
    name = PurePosixPath(unquote(urlparse(address).path)).name
    if name in ("", ".."):
        raise ValueError(f"{address} names no file")
    file = Path(torch.hub.get_dir()) / "checkpoints" / name
    if file.is_file():
        return file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(address, str(file), progress=sys.stderr.isatty())
    except (OSError, HTTPException, ValueError) as error:
        raise ValueError(
            f"{address} could not be downloaded: {error}. Check the address and the network, or "
            "give the path of a file"
        ) from error
    return file
