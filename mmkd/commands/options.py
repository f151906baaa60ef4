"""Options that several commands share."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

__all__ = [
    "Baseline",
    "BootstrapSeed",
    "CategoryIds",
    "HowToReadIds",
    "Imports",
    "MaxFileMB",
    "Resamples",
    "Teacher",
]


class CategoryIds(str, Enum):
    """Conventions of category ids."""

    auto = "auto"
    ids = "ids"
    zero_based = "zero-based"
    one_based = "one-based"


Baseline = Annotated[
    str | None, typer.Option(help="Run to compare to.", show_default="plain, if there is one")
]
Teacher = Annotated[
    str | None, typer.Option(help="The teacher.", show_default="teacher, if there is one")
]
HowToReadIds = Annotated[
    CategoryIds, typer.Option(help="How to read the detections' category ids.")
]
Resamples = Annotated[int, typer.Option(min=0, help="Of the images, for intervals.")]
BootstrapSeed = Annotated[int, typer.Option(min=0, help="Of the resamples.")]
MaxFileMB = Annotated[int, typer.Option(min=0, help="Size of the largest file to read; 0 for any.")]
Imports = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        metavar="MODULE_OR_FILE",
        help="Import this first: a module or a .py file of yours that registers a loss, a "
        "projector or a network. Each by one option.",
    ),
]
