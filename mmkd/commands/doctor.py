"""``mmkd doctor``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from mmkd.commands.options import CfgOptions, Imports, MMConfig, MoreCfgOptions
from mmkd.commands.user_errors import user_errors

__all__ = ["doctor"]


def doctor(
    config: MMConfig,
    more_options: MoreCfgOptions = None,
    iterations: Annotated[int, typer.Option(min=1, help="To look at, beside a warm-up.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of tables.")] = False,
    options: CfgOptions = None,
    imports: Imports = None,
) -> None:
    """Look at a distillation before it is trained, with advice.

    Ends with status 1 where something of it will not help as it is. Nothing is written.
    """
    with user_errors("doctor", RuntimeError):
        from rich.console import Console

        from mmkd.custom_imports import import_modules
        from mmkd.doctor import advise
        from mmkd.doctor.terminal import print_examination
        from mmkd.runs.mmengine.doctor import examine
        from mmkd.runs.mmengine.single import config_to_train

        import_modules(imports or [])
        settings = config_to_train(config, options=[*(options or []), *(more_options or [])])
        found = examine(settings, iterations)
    advice = advise(found)
    if as_json:
        content = {**asdict(found), "advice": [each._asdict() for each in advice]}
        typer.echo(json.dumps(content, indent=2))
    else:
        print_examination(found, advice, Console())
    if any(each.level == "error" for each in advice):
        raise typer.Exit(1)
