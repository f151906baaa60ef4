"""Which Ultralytics this adapter was tested with."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from mmkd.extras import installation

__all__ = ["check_version"]


def check_version() -> None:
    """Raises unless the installed Ultralytics is in the range that mmkd's extra ``yolo`` states.

    The adapter overrides methods of the trainer, whose meaning changes between releases.

    Raises:
        ImportError: It is missing, or outside the range.
    """
    stated = [Requirement(text) for text in requires("mmkd") or ()]
    supported = next(each.specifier for each in stated if each.name == "ultralytics")
    advice = installation("yolo")
    try:
        found = version("ultralytics")
    except PackageNotFoundError as error:
        raise ImportError(
            f"mmkd's YOLO adapter needs ultralytics{supported}, found none: {advice}"
        ) from error
    if not supported.contains(found, prereleases=True):
        raise ImportError(
            f"mmkd's YOLO adapter was tested with ultralytics{supported}, found {found}: {advice}"
        )
