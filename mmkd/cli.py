"""The ``mmkd`` command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

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


class Backend(str, Enum):
    """Implementations of COCO's evaluation."""

    pycocotools = "pycocotools"
    faster = "faster"


class CategoryIds(str, Enum):
    """Conventions of category ids."""

    auto = "auto"
    ids = "ids"
    zero_based = "zero-based"
    one_based = "one-based"


class Framework(str, Enum):
    """What the demo trains with."""

    faster_rcnn = "faster_rcnn"
    yolov5 = "yolov5"


Baseline = Annotated[
    str | None, typer.Option(help="Run to compare to.", show_default="plain, if there is one")
]
Teacher = Annotated[
    str | None, typer.Option(help="The teacher.", show_default="teacher, if there is one")
]
HowToReadIds = Annotated[
    CategoryIds, typer.Option(help="How to read the detections' category ids.")
]
BootstrapSeed = Annotated[int, typer.Option(min=0, help="Of the resamples.")]


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
    from mmkd.errors import InputError

    # Networks this small gain little from a second thread, and lose much on a busy machine.
    torch.set_num_threads(1)
    suffix = "" if framework is Framework.faster_rcnn else f"_{framework.value}"
    try:
        run_demo(out or Path(f"work_dirs/demo{suffix}"), seeds=seeds, framework=framework.value)
    except (FileExistsError, ImportError, InputError) as error:
        raise typer.BadParameter(str(error)) from error


@app.command("eval")
def evaluate(
    annotations: Annotated[Path, typer.Argument(help="COCO annotation file.")],
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]FILE...",
            help="Detections in COCO's result format, or checkpoints (.pth of MMDetection, .pt of "
            "Ultralytics). Files of one name are seeds of one run.",
        ),
    ],
    baseline: Baseline = None,
    teacher: Teacher = None,
    resamples: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Of the images, for 95% intervals; 0 for none.",
            show_default="1000; 0 with --backend faster",
        ),
    ] = None,
    seed: BootstrapSeed = 0,
    backend: Annotated[
        Backend, typer.Option(help="pycocotools, or faster-coco-eval with its figures.")
    ] = Backend.pycocotools,
    category_ids: HowToReadIds = CategoryIds.auto,
    area: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=LOW:HIGH",
            help="Range of object areas in square pixels; instead of COCO's, each by one option.",
        ),
    ] = None,
    max_detections: Annotated[
        list[str] | None,
        typer.Option(metavar="NUMBER,...", help="Per image and class.", show_default="1,10,100"),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write everything to this file.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write a line a figure.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the tables for a README.")] = None,
    figures: Annotated[Path | None, typer.Option(help="Draw figures into this folder.")] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images, for checkpoints.")
    ] = None,
    config: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE", help="A checkpoint's config, where not the one that it holds."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where checkpoints' detections go.")] = Path(
        "work_dirs/eval"
    ),
    classes: Annotated[
        bool | None,
        typer.Option(help="Print the table by class.", show_default="up to 25 classes"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes.", show_default="all cores, if it pays")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
) -> None:
    """Evaluate detections as COCO does, and compare runs with intervals and kinds of error.

    ``mmkd eval val.json plain=a.json distilled=b.json teacher=c.json``
    """
    from mmkd.commands.evaluation import (
        EvalOutputs,
        Requests,
        evaluate_files,
        parse_areas,
        parse_limits,
        parse_pairs,
        parse_runs,
    )
    from mmkd.evaluation.coco import CocoSettings

    with _user_errors("eval"):
        settings: dict[str, Any] = {}
        if area:
            settings["areas"] = parse_areas(area)
        if max_detections:
            settings["max_detections"] = parse_limits(max_detections)
        evaluate_files(
            annotations,
            parse_runs(runs),
            requests=Requests(images, parse_pairs("config", "NAME=FILE", config or []), out),
            outputs=EvalOutputs(json, csv, markdown, figures),
            settings=CocoSettings(**settings),
            category_ids=category_ids.value,
            baseline=baseline,
            teacher=teacher,
            resamples=_resamples(resamples, backend),
            seed=seed,
            backend=backend.value,
            workers=workers,
            classes=classes,
            force=force,
        )


def _resamples(asked: int | None, backend: Backend) -> int:
    if asked is not None:
        return asked
    return 1000 if backend is Backend.pycocotools else 0


@app.command()
def report(
    work_dirs: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]WORK_DIR...",
            help="Folders of runs; those of one name are seeds. Without a name: what mmkd called "
            "the run, or the folder's, less _seed<number>.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
    baseline: Baseline = None,
    teacher: Teacher = None,
    annotations: Annotated[
        Path | None,
        typer.Option(help="COCO annotation file.", show_default="the one that the runs name"),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of its images.", show_default="likewise")
    ] = None,
    detections: Annotated[
        list[str] | None,
        typer.Option(metavar="WORK_DIR=FILE", help="A run's detections, where they lie elsewhere."),
    ] = None,
    category_ids: HowToReadIds = CategoryIds.auto,
    resamples: Annotated[int, typer.Option(min=0, help="Of the images, for intervals.")] = 1000,
    seed: BootstrapSeed = 0,
) -> None:
    """Write one HTML page on a run, or on several side by side."""
    from mmkd.commands.evaluation import parse_pairs, split_name
    from mmkd.report import write_report

    with _user_errors("report"):
        named = [split_name(each) for each in work_dirs]
        elsewhere = parse_pairs("detections", "WORK_DIR=FILE", detections or [])
        file = write_report(
            [path for _, path in named],
            out,
            annotations=annotations,
            images=images,
            detections={Path(folder): file for folder, file in elsewhere.items()},
            names={path: name for name, path in named if name is not None},
            baseline=baseline,
            teacher=teacher,
            category_ids=category_ids.value,
            resamples=resamples,
            seed=seed,
            progress=True,
            tell=lambda note: typer.echo(f"mmkd report: {note}", err=True),
        )
    typer.echo(file)


@app.command()
def compare(
    config: Annotated[
        str,
        typer.Argument(help="Config with a DistillHook, or a YAML file of `mmkd yolo train`."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for runs, tables and report.")],
    seeds: Annotated[
        list[int] | None, typer.Option("--seed", help="Each by one option.", show_default="0")
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="KEY=VALUE", help="Override a config value."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Runs at the same time.")] = 1,
    resamples: Annotated[int, typer.Option(min=0, help="Of the images, for intervals.")] = 1000,
) -> None:
    """Train plain and distilled from the same start, evaluate both, and report the difference.

    A comparison that was stopped goes on when it is called again.
    """
    from mmkd.report.results import check_out, compare_results, write_results
    from mmkd.runs.paired import compare_config

    try:
        with _user_errors("compare"):
            out = out.resolve()
            check_out(out)
            runs = compare_config(config, seeds or [0], out, options=options or [], workers=workers)
            compared = compare_results(runs.results, resamples=resamples)
            file = write_results(compared, out, title=runs.title, notes=runs.notes)
    except KeyboardInterrupt:
        typer.echo("mmkd compare: stopped; the same call goes on from here", err=True)
        raise typer.Exit(130) from None
    typer.echo(file)


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


def _stopped(error: Exception, command: str = "yolo train") -> typer.Exit:
    typer.echo(f"mmkd {command}: {error}", err=True)
    return typer.Exit(2)


@contextmanager
def _user_errors(command: str) -> Iterator[None]:
    """Ends with the message alone where the input is at fault."""
    from mmkd.errors import InputError

    try:
        yield
    except (InputError, OSError) as error:
        raise _stopped(error, command) from error


def main() -> None:
    """Entry point of the command."""
    app()
