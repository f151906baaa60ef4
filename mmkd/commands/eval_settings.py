"""What COCO leaves adjustable, as options."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

from mmkd.errors import InputError
from mmkd.evaluation.coco import COCO_AREAS, CocoSettings

__all__ = ["coco_settings", "parse_areas", "parse_limits"]


def coco_settings(areas: Sequence[str], max_detections: Sequence[str]) -> CocoSettings:
    """COCO's own settings, but for what is given.

    Args:
        areas: See :func:`parse_areas`.
        max_detections: See :func:`parse_limits`.

    Raises:
        InputError: Anything else, or what no evaluation can use.
    """
    settings = CocoSettings()
    if areas:
        settings = replace(settings, areas=parse_areas(areas))
    if max_detections:
        settings = replace(settings, max_detections=parse_limits(max_detections))
    return settings


def parse_limits(arguments: Sequence[str]) -> tuple[int, ...]:
    """Reads numbers of detections, each by itself or several with commas between.

    Raises:
        InputError: Anything else.
    """
    try:
        return tuple(int(part) for argument in arguments for part in argument.split(","))
    except ValueError as error:
        raise InputError(
            f"--max-detections: expected whole numbers, as 1,10,100, got {' '.join(arguments)!r}"
        ) from error


def parse_areas(arguments: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Reads ``NAME=LOW:HIGH``, in square pixels, behind the range ``all``.

    Raises:
        InputError: Anything else.
    """
    areas = {"all": COCO_AREAS["all"]}
    for argument in arguments:
        found = re.fullmatch(r"([^=]+)=([^:]+):([^:]+)", argument)
        try:
            if found is None or found[1] in areas:
                raise ValueError(argument)
            areas[found[1]] = (float(found[2]), float(found[3]))
            if not math.isfinite(sum(areas[found[1]])):
                raise ValueError(argument)
        except ValueError as error:
            raise InputError(
                "area: expected NAME=LOW:HIGH in square pixels, as tiny=0:256, each name once and "
                f"none of them 'all', got {argument!r}"
            ) from error
    return areas
