"""How commands end where their input is at fault."""

from __future__ import annotations

import errno
import os

import pytest
import typer

from mmkd.commands.user_errors import user_errors
from mmkd.errors import InputError, MissingFileError, TermError


def said(error: Exception, capsys: pytest.CaptureFixture[str], *others: type[Exception]) -> str:
    with pytest.raises(typer.Exit) as caught, user_errors("x y", *others):
        raise error
    assert caught.value.exit_code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("mmkd x y: ")
    return line.removeprefix("mmkd x y: ")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (InputError("a: expected b"), "a: expected b"),
        (MissingFileError("no such file: a"), "no such file: a"),
        (TermError("terms.a: does not work"), "terms.a: does not work"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.json"),
            "a.json: No space left on device",
        ),
        (OSError(errno.ENOSPC, "Full", "from.png", None, "to.png"), "to.png: Full"),
        (OSError("disk gone"), "disk gone"),
        (
            UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
            "'utf-8' codec can't decode byte 0xff in position 0: bad",
        ),
        (
            RecursionError("maximum recursion depth exceeded"),
            "found lists or objects nested too deep to read",
        ),
        (MemoryError(), "out of memory"),
        (MemoryError("Unable to allocate 9 GiB"), "out of memory (Unable to allocate 9 GiB)"),
        (InputError("two\n  lines"), "two lines"),
        (InputError("a\x1b[2J\x07\ud800 ü"), r"a\x1b[2J\x07\ud800 ü"),
        (OSError(), "OSError"),
    ],
)
def test_what_a_user_can_cause_is_one_line(
    error: Exception, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(error, capsys) == message


def test_a_command_may_know_of_more(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(ValueError("no"), capsys, ValueError) == "no"


@pytest.mark.parametrize("error", [ValueError, KeyError, RuntimeError, BrokenPipeError])
def test_others_keep_their_traceback(error: type[Exception]) -> None:
    with pytest.raises(error), user_errors("x"):
        raise error
