"""``mmkd test``."""

from __future__ import annotations

from typing import Annotated

import typer

from mmkd.commands.options import (
    CfgOptions,
    Imports,
    Launcher,
    LocalRank,
    MMConfig,
    MoreCfgOptions,
    WorkDir,
    start_under_launcher,
)
from mmkd.commands.user_errors import user_errors
from mmkd.errors import InputError

__all__ = ["test"]


def test(
    config: MMConfig,
    checkpoint: Annotated[str, typer.Argument(help="Of the model.", show_default=False)],
    more_options: MoreCfgOptions = None,
    work_dir: WorkDir = None,
    out: Annotated[
        str | None, typer.Option(metavar="FILE.pkl", help="Also write the predictions.")
    ] = None,
    show_dir: Annotated[
        str | None,
        typer.Option(help="Also draw the predictions; a folder within the work dir's own."),
    ] = None,
    options: CfgOptions = None,
    imports: Imports = None,
    launcher: Launcher = Launcher.none,
    local_rank: LocalRank = 0,
) -> None:
    """Test a checkpoint on its config's test set, without a teacher."""
    with user_errors("test"):
        if out and not out.endswith((".pkl", ".pickle")):
            raise InputError(f"--out writes a pickle: expected a name ending in .pkl, got {out}")
        from mmkd.custom_imports import import_modules
        from mmkd.runs.mmengine import single

        import_modules(imports or [])
        start_under_launcher(local_rank)
        settings = single.config_to_test(
            config,
            checkpoint,
            options=[*(options or []), *(more_options or [])],
            launcher=launcher.value,
            work_dir=work_dir,
            show_dir=show_dir,
        )
        single.test(settings, out)
