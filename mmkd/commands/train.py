"""``mmkd train``."""

from __future__ import annotations

from typing import Annotated

import typer
from typer.core import TyperCommand

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

__all__ = ["TrainCommand", "train"]


class TrainCommand(TyperCommand):
    """Its ``--resume`` may stand without a checkpoint, as it may in MMDetection's script."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Says ``--resume auto`` where ``--resume`` ends the line or an option follows it."""
        args = list(args)
        if "--resume" in args:
            after = args.index("--resume") + 1
            if not args[after:] or args[after].startswith("-"):
                args.insert(after, "auto")
        return super().parse_args(ctx, args)


def train(
    config: MMConfig,
    more_options: MoreCfgOptions = None,
    work_dir: WorkDir = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="[CHECKPOINT]",
            help="Go on from a checkpoint; without a path, from the newest in the work dir.",
        ),
    ] = None,
    amp: Annotated[bool, typer.Option("--amp", help="Train in mixed precision.")] = False,
    auto_scale_lr: Annotated[
        bool,
        typer.Option("--auto-scale-lr", help="Scale the learning rate to the actual batch size."),
    ] = False,
    options: CfgOptions = None,
    imports: Imports = None,
    launcher: Launcher = Launcher.none,
    local_rank: LocalRank = 0,
) -> None:
    """Train the model of a config; a DistillHook in it distils.

    mmkd train mmkd::classification/digits/resnet8_digits.py
    """
    with user_errors("train"):
        from mmkd.custom_imports import import_modules
        from mmkd.runs.mmengine import single

        import_modules(imports or [])
        start_under_launcher(local_rank)
        single.train(
            single.config_to_train(
                config,
                options=[*(options or []), *(more_options or [])],
                launcher=launcher.value,
                work_dir=work_dir,
                resume=resume,
                amp=amp,
                auto_scale_lr=auto_scale_lr,
            )
        )
