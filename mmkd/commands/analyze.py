"""``mmkd analyze``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmkd.commands.user_errors import user_errors
from mmkd.extras import extra

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
) -> None:
    """Draw what distillations recorded of themselves, side by side.

    Each figure as PNG and SVG, with the values that it shows as CSV; and a table of the last ones.
    """
    with user_errors("analyze"):
        with extra("report", "mmkd analyze"):
            from mmkd.commands.recordings import read_recordings
            from mmkd.report.dynamics_table import final_tables
            from mmkd.report.figures.dynamics import draw_dynamics
            from mmkd.report.terminal import markdown_table, rich_table
        from rich.console import Console

        from mmkd.output_files import check_output_folder, write_text

        check_output_folder(out)
        runs = read_recordings(work_dirs)
        files = draw_dynamics(runs, out)
        tables = final_tables(runs)
        sections = [f"## {table.title}\n\n{markdown_table(table)}\n" for table in tables]
        write_text(out / "values.md", "\n".join(["# What was recorded last\n", *sections]))
        for table in tables:
            Console().print(rich_table(table))
        typer.echo(f"{len(files)} figures, each as PNG, SVG and CSV, and values.md: {out}")
