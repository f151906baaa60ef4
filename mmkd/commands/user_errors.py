"""How a command ends where its user's input is at fault."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from mmkd.errors import SettingError
from mmkd.runs.interrupts import ending_on_interrupts

__all__ = ["stopped", "user_errors"]

# What a user can cause anywhere: a wrong setting or file; a disk that is full or forbids; a name
# that cannot be written; what is nested without end; what does not fit into memory.
_CAUSED = (SettingError, OSError, UnicodeError, RecursionError, MemoryError)


def stopped(command: str, error: BaseException) -> typer.Exit:
    """Prints the message alone, on one line, for a command that ends with status 2.

    Args:
        command: As the user called it (``'yolo train'``).
        error: Whose message it is.
    """
    typer.echo(f"mmkd {command}: {_on_one_line(_message(error))}", err=True)
    return typer.Exit(2)


@contextmanager
def user_errors(
    command: str, *others: type[Exception], after_interrupt: str = ""
) -> Iterator[None]:
    """Ends so on what a user can cause, or on one of ``others``; all else keeps its traceback.

    Ctrl-C ends the command with a line and status 130, also where a library swallows it.

    Args:
        command: See :func:`stopped`.
        others: What else can only come from the input.
        after_interrupt: What to do next, for the line.
    """
    caught: tuple[type[Exception], ...] = (*_CAUSED, *others)
    try:
        with ending_on_interrupts():
            yield
    except KeyboardInterrupt:
        typer.echo(f"mmkd {command}: stopped{after_interrupt}", err=True)
        raise typer.Exit(130) from None
    except BrokenPipeError:
        # Whoever reads the output has had enough (``| head``): nothing is wrong, and click ends.
        raise
    except caught as error:
        raise stopped(command, error) from error


def _message(error: BaseException) -> str:
    if isinstance(error, SettingError):
        return str(error)
    if isinstance(error, RecursionError):
        return "found lists or objects nested too deep to read"
    if isinstance(error, MemoryError):
        return f"out of memory {f'({error})' if str(error) else ''}".strip()
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        # Of a copy, the system names both files.
        place = error.filename if error.filename2 is None else error.filename2
        return f"{place}: {error.strerror}"
    return str(error) or type(error).__name__


def _on_one_line(text: str) -> str:
    """As it can be printed anywhere: a name may hold what moves a terminal's cursor."""
    line = " ".join(text.split())
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in line)
