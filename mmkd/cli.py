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
yolo = typer.Typer(no_args_is_help=True, help="Train YOLO detectors of Ultralytics.")
app.add_typer(yolo, name="yolo")


class Layout(str, Enum):
    """On-disk layouts of a detection set."""

    coco = "coco"
    yolo = "yolo"
    both = "both"


class Framework(str, Enum):
    """What the demo trains with."""

    faster_rcnn = "faster_rcnn"
    yolov5 = "yolov5"


@app.command()
def demo(
    out: Annotated[
        Path | None,
        typer.Option(help="Where data, runs and pictures go.", show_default="work_dirs/demo*"),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds; mean and spread.")] = 1,
    framework: Annotated[
        Framework, typer.Option(help="MMDetection's Faster R-CNN, or Ultralytics' YOLOv5.")
    ] = Framework.faster_rcnn,
) -> None:
    """Distil a small detector from a large one, on handwritten digits, in 10 minutes."""
    import torch

    from mmkd.demo import run_demo

    # Networks this small gain little from a second thread, and lose much on a busy machine.
    torch.set_num_threads(1)
    suffix = "" if framework is Framework.faster_rcnn else f"_{framework.value}"
    try:
        run_demo(out or Path(f"work_dirs/demo{suffix}"), seeds=seeds, framework=framework.value)
    except (FileExistsError, ImportError) as error:
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
) -> None:
    """Convert a set in COCO format to the layout that Ultralytics trains on."""
    from rich.console import Console

    from mmkd.data.to_yolo import coco_to_yolo

    splits = {"train": train, "val": val, **({"test": test} if test else {})}
    try:
        report = coco_to_yolo(out, splits, link=link, progress=True)
    except (ValueError, FileExistsError, FileNotFoundError) as error:
        raise typer.BadParameter(str(error)) from error
    Console().print(report.table())
    typer.echo(report.data_yaml)


@yolo.command(context_settings={"ignore_unknown_options": True})
def train(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="[CONFIG] KEY=VALUE...",
            help="A YAML file of configs/yolo, and Ultralytics' training arguments; teacher=FILE, "
            "and terms by dotted keys (terms.backbone.weight=3).",
        ),
    ],
) -> None:
    """Distil a YOLO detector: ``model=yolov5s.yaml teacher=yolov5m.pt data=coco.yaml epochs=300``.

    ``teacher=None`` trains without distillation. A run that was stopped goes on with ``resume``,
    ``model=.../last.pt`` and the same teacher.
    """
    has_config = arguments[0].endswith((".yaml", ".yml")) and "=" not in arguments[0]
    try:
        from mmkd.engine.ultralytics.train import prepare, read_settings

        settings = read_settings(arguments[0] if has_config else None, arguments[has_config:])
        model, rest = prepare(settings)
    except (ValueError, TypeError, FileNotFoundError, ImportError) as error:
        raise _stopped(error) from error
    try:
        model.train(**rest)
    except (ValueError, TypeError, RuntimeError, FileNotFoundError, SyntaxError) as error:
        # Ultralytics calls an unknown argument a SyntaxError; other errors keep their traceback.
        if isinstance(error, SyntaxError) or str(error).startswith("DistillCallback"):
            raise _stopped(error) from error
        raise


def _stopped(error: Exception) -> typer.Exit:
    typer.echo(f"mmkd yolo train: {error}", err=True)
    return typer.Exit(2)


def main() -> None:
    """Entry point of the command."""
    app()
