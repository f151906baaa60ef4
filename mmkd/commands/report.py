"""``mmkd report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmkd.commands.named_files import parse_pairs
from mmkd.commands.options import (
    Baseline,
    BootstrapSeed,
    CategoryIds,
    HowToReadIds,
    Imports,
    MaxFileMB,
    Resamples,
    Teacher,
)
from mmkd.commands.user_errors import user_errors
from mmkd.configs import config_path
from mmkd.extras import extra
from mmkd.input_files import LARGEST_MB, files_up_to

__all__ = ["report"]


def report(
    work_dirs: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]WORK_DIR...",
            help="Folders of runs; those of one name are seeds. Without a name: what mmkd called "
            "the run, or the folder's, less _seed<number>. Or checkpoints, as mmkd eval takes "
            "them, of runs that left no detections.",
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
    config: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE", help="A checkpoint's config, where not the one that it holds."
        ),
    ] = None,
    imports: Imports = None,
    category_ids: HowToReadIds = CategoryIds.auto,
    resamples: Resamples = 1000,
    seed: BootstrapSeed = 0,
    max_file_mb: MaxFileMB = LARGEST_MB,
) -> None:
    """Write one HTML page on a run, or on several side by side."""
    with user_errors("report"), files_up_to(max_file_mb):
        with extra("report", "mmkd report"):
            from mmkd.commands.checkpoint_detections import Requests
            from mmkd.commands.reported_runs import find_runs
            from mmkd.report import check_out, write_report
        from mmkd.custom_imports import import_modules

        import_modules(imports or [])
        check_out(out)
        configs = parse_pairs("config", "NAME=FILE", config or []).items()
        requests = Requests(images, {k: Path(config_path(str(file))) for k, file in configs})
        elsewhere = parse_pairs("detections", "WORK_DIR=FILE", detections or [])
        runs = find_runs(work_dirs, annotations, requests)
        file = write_report(
            runs.work_dirs,
            out,
            annotations=annotations,
            images=images,
            detections=runs.detections | {Path(folder): f for folder, f in elsewhere.items()},
            names=runs.names,
            baseline=baseline,
            teacher=teacher,
            category_ids=category_ids.value,
            resamples=resamples,
            seed=seed,
            progress=True,
            tell=lambda note: typer.echo(f"mmkd report: {note}", err=True),
        )
        typer.echo(file)
