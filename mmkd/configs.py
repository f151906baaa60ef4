"""Where the configs that ship with mmkd lie."""

from __future__ import annotations

from pathlib import Path

__all__ = ["config_file"]

_PACKAGE = Path(__file__).resolve().parent


def config_file(name: str) -> str:
    """The path of a config, such as ``'detection/digits/faster-rcnn_r18-w16_digits.py'``.

    Raises:
        FileNotFoundError: No such config.
    """
    # An installed wheel carries them inside the package, a checkout beside it.
    for root in (_PACKAGE / ".mim" / "configs", _PACKAGE.parent / "configs"):
        if (root / name).is_file():
            return str(root / name)
    raise FileNotFoundError(f"mmkd has no config {name!r}")
