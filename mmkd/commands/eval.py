"""``mmkd eval``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from mmkd.commands.named_files import parse_pairs, parse_runs
from mmkd.commands.options import (
    Baseline,
    BootstrapSeed,
    CategoryIds,
    HowToReadIds,
    Imports,
    MaxFileMB,
    Teacher,
)
from mmkd.commands.user_errors import user_errors
from mmkd.configs import config_path
from mmkd.extras import extra
from mmkd.input_files import LARGEST_MB, files_up_to

__all__ = ["evaluate"]


class Backend(str, Enum):
    """Implementations of COCO's evaluation."""

    pycocotools = "pycocotools"
    faster = "faster"


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
    imports: Imports = None,
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
    max_file_mb: MaxFileMB = LARGEST_MB,
    force: Annotated[
        bool, typer.Option("--force", help="Replace existing files, and detect anew.")
    ] = False,
) -> None:
    """Evaluate detections as COCO does, and compare runs.

    With intervals of the differences, and the kinds of error that are left:

    mmkd eval val.json plain=a.json distilled=b.json teacher=c.json
    """
    with user_errors("eval"), files_up_to(max_file_mb):
        from mmkd.commands.eval_settings import coco_settings

        # Its tables are the report's.
        with extra("report", "mmkd eval"):
            from mmkd.commands.checkpoint_detections import Requests
            from mmkd.commands.evaluate_files import EvalOutputs, evaluate_files
        from mmkd.custom_imports import import_modules

        import_modules(imports or [])
        named = parse_pairs("config", "NAME=FILE", config or []).items()
        configs = {name: Path(config_path(str(file))) for name, file in named}
        evaluate_files(
            annotations,
            parse_runs(runs),
            requests=Requests(images, configs, out, force),
            outputs=EvalOutputs(json, csv, markdown, figures),
            settings=coco_settings(area or [], max_detections or []),
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
