"""How a command ends where its user's input is at fault."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from mmkd.errors import InputError

__all__ = ["stopped", "user_errors"]


def stopped(command: str, error: Exception) -> typer.Exit:
    """Prints the message alone, for a command that ends with status 2.

    Args:
        command: As the user called it (``'yolo train'``).
        error: Whose message it is.
    """
    typer.echo(f"mmkd {command}: {error}", err=True)
    return typer.Exit(2)


@contextmanager
def user_errors(command: str, *others: type[Exception]) -> Iterator[None]:
    """Ends so on an InputError, an OSError, or one of ``others``; all else keeps its traceback.

    Args:
        command: See :func:`stopped`.
        others: What else can only come from the input.
    """
    caught: tuple[type[Exception], ...] = (InputError, OSError, *others)
    try:
        yield
    except caught as error:
        raise stopped(command, error) from error
