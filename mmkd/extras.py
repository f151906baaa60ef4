"""Packages that only a part of mmkd needs, and how a user who lacks one gets it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmkd.errors import InputError

__all__ = ["MissingExtraError", "extra", "installation"]


class MissingExtraError(InputError, ImportError):
    """A package of one of mmkd's extras is missing; commands show the message alone."""


@contextmanager
def extra(name: str, purpose: str) -> Iterator[None]:
    """Around imports of packages that an extra of mmkd's installs.

    Args:
        name: Of the extra, as pyproject.toml lists it (``'report'``).
        purpose: What needs it, for the message (``'mmkd report'``).

    Raises:
        MissingExtraError: An import failed. It says of which package, and how to install it. Of
            several around one import, the outermost speaks: its extra holds the others'.
    """
    try:
        yield
    except ImportError as error:
        # What is wrong with mmkd's own modules is no package that could be installed.
        if (error.name or "").partition(".")[0] == "mmkd":
            raise
        failed = error.__cause__ if isinstance(error, MissingExtraError) else error
        raise MissingExtraError(
            f"{purpose} needs the extra {name!r} ({failed}): {installation(name)}"
        ) from failed


def installation(name: str) -> str:
    """The command that adds an extra to mmkd from where it came: a clone, a wheel, an address.

    Args:
        name: See :func:`extra`.
    """
    origin = _origin()
    if origin is None:
        return f"pip install 'mmkd[{name}]'"
    address = origin["url"]
    if origin.get("dir_info", {}).get("editable"):
        from urllib.parse import urlsplit
        from urllib.request import url2pathname

        return f"pip install -e '{url2pathname(urlsplit(address).path)}[{name}]'"
    if "vcs_info" in origin:
        version = origin["vcs_info"]
        address = f"{version['vcs']}+{address}@{version['commit_id']}"
    return f"pip install 'mmkd[{name}] @ {address}'"


def _origin() -> dict[str, Any] | None:
    """What the installer wrote down as mmkd's origin (PEP 610); None for a package index."""
    # Here, so that a help text, which needs none of this, stays quick.
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        text = distribution("mmkd").read_text("direct_url.json")
    except PackageNotFoundError:
        # Not installed at all: a clone on the path.
        clone = Path(__file__).resolve().parents[1]
        return dict(url=clone.as_uri(), dir_info=dict(editable=True))
    return json.loads(text) if text else None
