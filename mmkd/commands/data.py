"""``mmkd data``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from mmkd.commands.options import MaxFileMB
from mmkd.commands.user_errors import user_errors
from mmkd.input_files import LARGEST_MB, files_up_to

__all__ = ["data"]

data = typer.Typer(no_args_is_help=True, help="Make data sets.")


class Layout(str, Enum):
    """On-disk layouts of a detection set."""

    coco = "coco"
    yolo = "yolo"
    both = "both"


@data.command()
def digits(
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    num_train: Annotated[int, typer.Option(min=1)] = 1000,
    num_val: Annotated[int, typer.Option(min=1)] = 200,
    image_size: Annotated[int, typer.Option(help="Side in pixels.")] = 96,
    layout: Annotated[Layout, typer.Option(help="COCO, YOLO or both.")] = Layout.coco,
    seed: int = 0,
) -> None:
    """Write real handwritten digits on textured canvases as a detection set."""
    with user_errors("data digits", ValueError):
        from mmkd.data.digits import make_digits

        folder = make_digits(
            out,
            num_train=num_train,
            num_val=num_val,
            image_size=image_size,
            layout=layout.value,
            seed=seed,
        )
        typer.echo(folder)


@data.command("to-yolo")
def to_yolo(
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    train: Annotated[
        tuple[Path, Path],
        typer.Option(metavar="JSON IMAGES", help="Annotation file and folder of the images."),
    ],
    val: Annotated[tuple[Path, Path], typer.Option(metavar="JSON IMAGES", help="Likewise.")],
    test: Annotated[
        tuple[Path, Path] | None, typer.Option(metavar="JSON IMAGES", help="Likewise.")
    ] = None,
    link: Annotated[
        bool, typer.Option("--link", help="Link to the images instead of copying them.")
    ] = False,
    max_file_mb: MaxFileMB = LARGEST_MB,
) -> None:
    """Convert a set in COCO format to the layout that Ultralytics trains on."""
    from rich.console import Console

    splits = {"train": train, "val": val, **({"test": test} if test else {})}
    with user_errors("data to-yolo", ValueError), files_up_to(max_file_mb):
        from mmkd.data.to_yolo import coco_to_yolo

        report = coco_to_yolo(out, splits, link=link, progress=True)
        Console().print(report.table())
        typer.echo(report.data_yaml)
