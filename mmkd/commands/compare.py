"""``mmkd compare``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from mmkd.commands.named_files import split_name
from mmkd.commands.options import Imports, MaxFileMB, Resamples
from mmkd.commands.user_errors import user_errors
from mmkd.errors import InputError
from mmkd.extras import extra
from mmkd.input_files import LARGEST_MB, files_up_to, real_path

__all__ = ["compare"]


def compare(
    configs: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]CONFIG...",
            help="Config with a DistillHook, or YAML file of `mmkd yolo train`; one of mmkd's by "
            "its name, mmkd::FOLDER/FILE. Of several, which differ in nothing else, each is "
            "trained, and the plain student once.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for runs, tables and report.")],
    seeds: Annotated[
        list[int] | None, typer.Option("--seed", help="Each by one option.", show_default="0")
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="KEY=VALUE", help="Override a config value."),
    ] = None,
    imports: Imports = None,
    workers: Annotated[int, typer.Option(min=1, help="Runs at the same time.")] = 1,
    resamples: Resamples = 1000,
    max_file_mb: MaxFileMB = LARGEST_MB,
) -> None:
    """Train plain and distilled from the same start; report the gain.

    Both are evaluated, and so is the teacher. A comparison that was stopped goes on when it is
    called again.
    """
    goes_on = "; the same call goes on from here"
    with user_errors("compare", after_interrupt=goes_on), files_up_to(max_file_mb):
        from mmkd.custom_imports import import_modules

        with extra("report", "mmkd compare"):
            from mmkd.report.results import check_out, compare_results, write_results
            from mmkd.runs.paired import compare_config

        import_modules(imports or [])
        out = real_path(out)
        check_out(out)
        arms = _named(configs)
        runs = compare_config(arms, seeds or [0], out, options=options or [], workers=workers)
        compared = compare_results(runs.results, resamples=resamples)
        file = write_results(compared, out, title=runs.title, notes=runs.notes)
    typer.echo(file)


def _named(configs: Sequence[str]) -> dict[str, Path]:
    """The configs by the names of their runs: a single one's are called distilled."""
    named: dict[str, Path] = {}
    for name, file in map(split_name, configs):
        called = name or ("distilled" if len(configs) == 1 else file.stem)
        if called in named:
            raise InputError(
                f"{named[called]} and {file} would both be called {called!r}: give NAME=CONFIG"
            )
        named[called] = file
    return named
