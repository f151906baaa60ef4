"""Checkpoints by address, in the folder where torch keeps what it downloads."""

from __future__ import annotations

import hashlib
import re
import sys
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlparse

import torch

__all__ = ["cached_name", "downloaded", "is_address"]


def is_address(source: str) -> bool:
    """Whether it names something elsewhere (``https://...``), and no path."""
    return "://" in source


def cached_name(address: str, name: str) -> str:
    """Published files end in a part of their digest, by which all libraries share them; any other
    name, such as ``best.pt``, stands for many files."""
    if re.search(r"-[0-9a-f]{8,}\.\w+$", name):
        return name
    place = address.partition("?")[0]
    return f"{hashlib.sha256(place.encode()).hexdigest()[:12]}-{name}"


def downloaded(address: str) -> Path:
    """The file of an address, downloaded where torch's cache does not hold it yet.

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
    file = Path(torch.hub.get_dir()) / "checkpoints" / cached_name(address, name)
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
