"""``mmkd analyze``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmkd.commands.options import Imports
from mmkd.commands.user_errors import user_errors
from mmkd.extras import extra

if TYPE_CHECKING:
    from mmkd.commands.recordings import Recording

__all__ = ["analyze"]


def analyze(
    work_dirs: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]WORK_DIR...",
            help="Folders of runs that recorded a dynamics.csv, or such files; those of one name "
            "are seeds.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for figures and tables.")] = Path(
        "work_dirs/analysis"
    ),
    tsne: Annotated[
        int,
        typer.Option(
            metavar="IMAGES",
            min=0,
            help="Also draw, by t-SNE, what each run's last checkpoint holds of so many of its "
            "validation images, just before it names a class. Folders that recorded nothing will "
            "do. Their configs are run.",
        ),
    ] = 0,
    imports: Imports = None,
) -> None:
    """Draw what distillations recorded of themselves, side by side.

    Each figure as PNG and SVG, with the values that it shows as CSV; and a table of the last ones.
    """
    with user_errors("analyze"):
        with extra("report", "mmkd analyze"):
            from mmkd.commands.recordings import read_recordings
            from mmkd.report.dynamics_table import final_tables
            from mmkd.report.figures.dynamics import draw_dynamics
            from mmkd.report.figures.matrices import draw_matrices
            from mmkd.report.terminal import markdown_table, rich_table
        from rich.console import Console

        from mmkd.custom_imports import import_modules
        from mmkd.output_files import check_output_folder, write_text

        import_modules(imports or [])
        check_output_folder(out)
        found = read_recordings(work_dirs, must_record=not tsne)
        runs = {name: rows for name, seeds in found.items() if any(rows := [s.rows for s in seeds])}
        files = draw_dynamics(runs, out)
        # Of a seed, since those of several have no channels in common.
        files += draw_matrices({name: seeds[0].matrices for name, seeds in found.items()}, out)
        if tsne:
            files.append(_draw_tsne({name: seeds[0] for name, seeds in found.items()}, tsne, out))
        tables = final_tables(runs)
        sections = [f"## {table.title}\n\n{markdown_table(table)}\n" for table in tables]
        if tables:
            write_text(out / "values.md", "\n".join(["# What was recorded last\n", *sections]))
        for table in tables:
            Console().print(rich_table(table))
        and_values = ", and values.md" if tables else ""
        kinds = "each as PNG, SVG and CSV"
        typer.echo(f"{len(files)} figure{'s' * (len(files) != 1)}, {kinds}{and_values}: {out}")


def _draw_tsne(runs: Mapping[str, Recording], images: int, out: Path) -> Path:
    with extra("report", "mmkd analyze --tsne"):
        from mmkd.report.figures.tsne import Points, draw_tsne
    from mmkd.runs.penultimate import penultimate_features
    from mmkd.work_dirs import read_work_dir

    points = {}
    for name, each in runs.items():
        found = penultimate_features(read_work_dir(each.place), images)
        points[name] = Points(found.features.numpy(), found.labels.numpy(), found.classes)
    return draw_tsne(points, out)
