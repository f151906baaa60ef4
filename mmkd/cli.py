"""The ``mmkd`` command."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["main"]

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
data = typer.Typer(no_args_is_help=True, help="Make data sets.")
app.add_typer(data, name="data")


class Layout(str, Enum):
    """On-disk layouts of a detection set."""

    coco = "coco"
    yolo = "yolo"
    both = "both"


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where data, runs and pictures go.")] = Path(
        "work_dirs/demo"
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds; mean and spread.")] = 1,
) -> None:
    """Distil a small Faster R-CNN from a large one, on handwritten digits, in 10 minutes."""
    import torch

    from mmkd.demo import run_demo

    # Networks this small gain little from a second thread, and lose much on a busy machine.
    torch.set_num_threads(1)
    try:
        run_demo(out, seeds=seeds)
    except FileExistsError as error:
        raise typer.BadParameter(str(error)) from error


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
    from mmkd.data.digits import make_digits

    try:
        folder = make_digits(
            out,
            num_train=num_train,
            num_val=num_val,
            image_size=image_size,
            layout=layout.value,
            seed=seed,
        )
    except (ValueError, FileExistsError) as error:
        raise typer.BadParameter(str(error)) from error
    typer.echo(folder)


def main() -> None:
    """Entry point of the command."""
    app()
