"""The list of mmkd's commands."""

from __future__ import annotations

from typing import Annotated

import typer

import mmkd
from mmkd.commands.analyze import analyze
from mmkd.commands.compare import compare
from mmkd.commands.data import data
from mmkd.commands.demo import demo
from mmkd.commands.doctor import doctor
from mmkd.commands.eval import evaluate
from mmkd.commands.report import report
from mmkd.commands.test import test
from mmkd.commands.train import TrainCommand, train
from mmkd.commands.yolo import yolo

__all__ = ["main"]

# Plain help: rich's takes twice as long to import as all else that a help text needs.
app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.command()(demo)
app.command(cls=TrainCommand)(train)
app.command()(test)
app.command()(doctor)
app.command("eval")(evaluate)
app.command()(report)
app.command()(compare)
app.command()(analyze)
app.add_typer(data, name="data")
app.add_typer(yolo, name="yolo")


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"mmkd {mmkd.__version__}")
        raise typer.Exit


@app.callback()
def _mmkd(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version, and end."
        ),
    ] = False,
) -> None:
    """Distil an object detector from a larger one, and find out what that gains.

    "mmkd demo" shows all of it.
    """


def main() -> None:
    """Entry point of the command."""
    app()
