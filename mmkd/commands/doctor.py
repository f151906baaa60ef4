"""``mmkd doctor``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmkd.commands.options import CfgOptions, Imports
from mmkd.commands.user_errors import user_errors
from mmkd.errors import InputError
from mmkd.extras import extra

if TYPE_CHECKING:
    from mmkd.doctor import Examination
    from mmkd.doctor.level_map import LevelMap

__all__ = ["doctor"]


def doctor(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="CONFIG [KEY=VALUE...]",
            help="Config of mmkd train, or YAML file of mmkd yolo train; and settings in the place "
            "of its own.",
        ),
    ],
    iterations: Annotated[int, typer.Option(min=1, help="To look at, beside a warm-up.")] = 10,
    levels: Annotated[
        bool,
        typer.Option(
            "--levels", help="Compare every level of student and teacher, in the place of terms."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of tables.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="WORK_DIR",
            help="Also keep what was found in a run's folder, as doctor.json, which mmkd report "
            "shows.",
        ),
    ] = None,
    options: CfgOptions = None,
    imports: Imports = None,
) -> None:
    """Look at a distillation before it is trained, with advice.

    Ends with status 1 where something of it will not help as it is. Nothing is written but by
    --out.
    """
    config, *more = arguments
    is_yolo = config.endswith((".yaml", ".yml"))
    with user_errors("doctor", RuntimeError, *((TypeError, SyntaxError) if is_yolo else ())):
        from rich.console import Console

        from mmkd.custom_imports import import_modules
        from mmkd.doctor import advise
        from mmkd.doctor.file import as_json as json_of
        from mmkd.doctor.file import check_place, write_examination
        from mmkd.doctor.terminal import print_examination, print_levels

        if out is not None:
            if levels:
                raise InputError("--out keeps an examination of terms: leave out --levels")
            if is_yolo and not out.is_dir():
                raise InputError(
                    f"--out {out}: expected the folder of a run, found none. Ultralytics trains "
                    "into another folder than one that is there: keep what was found once the "
                    "training has begun, or make the folder and train with exist_ok=True"
                )
            check_place(out)
        import_modules(imports or [])
        given = [*(options or []), *more]
        if is_yolo:
            look, look_at_levels = _of_yolo(config, given, imports or [])
        else:
            look, look_at_levels = _of_config(config, given)
        if levels:
            found_levels = look_at_levels()
        else:
            found = look(iterations)
            if out is not None:
                write_examination(out, found)
    if levels:
        if as_json:
            levels_found = {**asdict(found_levels), "proposals": found_levels.proposals}
            typer.echo(json.dumps(levels_found, indent=2))
        else:
            print_levels(found_levels, Console())
        return
    advice = advise(found)
    if as_json:
        typer.echo(json_of(found))
    else:
        print_examination(found, advice, Console())
    if any(each.level == "error" for each in advice):
        raise typer.Exit(1)


# What looks for some iterations, and what looks at the levels.
_Looks = tuple[Callable[[int], "Examination"], Callable[[], "LevelMap"]]


def _of_config(config: str, options: list[str]) -> _Looks:
    from mmkd.runs.mmengine.doctor import examine, examine_levels
    from mmkd.runs.mmengine.single import config_to_train

    settings = config_to_train(config, options=options)
    return partial(examine, settings), partial(examine_levels, settings)


def _of_yolo(file: str, arguments: list[str], imports: list[str]) -> _Looks:
    with extra("yolo", "mmkd doctor"):
        from mmkd.engine.ultralytics.train import add_imports, read_settings
        from mmkd.runs.ultralytics.doctor import examine, examine_levels

    settings = add_imports(read_settings(file, arguments), imports)
    return partial(examine, settings), partial(examine_levels, settings)
