"""Options that several commands share."""

from __future__ import annotations

import os
from enum import Enum
from typing import Annotated

import typer

__all__ = [
    "Baseline",
    "BootstrapSeed",
    "CategoryIds",
    "CfgOptions",
    "HowToReadIds",
    "Imports",
    "Launcher",
    "LocalRank",
    "MMConfig",
    "MaxFileMB",
    "MoreCfgOptions",
    "Resamples",
    "Teacher",
    "WorkDir",
    "start_under_launcher",
]


class CategoryIds(str, Enum):
    """Conventions of category ids."""

    auto = "auto"
    ids = "ids"
    zero_based = "zero-based"
    one_based = "one-based"


class Launcher(str, Enum):
    """Of MMEngine's several processes."""

    none = "none"
    pytorch = "pytorch"
    slurm = "slurm"
    mpi = "mpi"


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

# Those of `mmkd train` and `mmkd test`, which take what MMDetection's own scripts take.
MMConfig = Annotated[
    str,
    typer.Argument(
        help="A config's file, or its name: mmkd::FOLDER/FILE.py, or that of another package.",
        show_default=False,
    ),
]
CfgOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--cfg-options",
        "-o",
        metavar="KEY=VALUE...",
        help="Override config values, such as train_cfg.max_epochs=3.",
    ),
]
# Of `--cfg-options A=1 B=2`, an option takes the first alone.
MoreCfgOptions = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="As --cfg-options.")
]
WorkDir = Annotated[
    str | None,
    typer.Option(
        help="Folder of logs and checkpoints.", show_default="./work_dirs/<config's name>"
    ),
]
LocalRank = Annotated[
    # Launchers pass one spelling or the other, or set LOCAL_RANK themselves.
    int, typer.Option("--local-rank", "--local_rank", hidden=True)
]


def start_under_launcher(local_rank: int) -> None:
    """Tells MMEngine which process this is, where the launcher did not."""
    os.environ.setdefault("LOCAL_RANK", str(local_rank))
