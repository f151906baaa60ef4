"""Ctrl-C ends a command, whatever a library makes of it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import typer

from helpers.toy_recipe import ToyRecipe
from mmkd.commands.user_errors import user_errors
from mmkd.errors import InputError
from mmkd.runs.interrupts import ending_on_interrupts, not_swallowed, raise_if_interrupted
from mmkd.runs.running import Job, run_all


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def swallow() -> None:
    """As a bare ``except`` does."""
    try:
        interrupt()
    except:  # noqa: E722
        return
    raise AssertionError


def test_an_interrupt_that_was_swallowed_ends_the_command() -> None:
    reached = []
    with pytest.raises(KeyboardInterrupt), ending_on_interrupts():
        swallow()
        reached.append(1)
    assert reached == [1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    # It is over.
    with ending_on_interrupts():
        raise_if_interrupted()


def test_an_interrupt_that_became_an_error_stays_one() -> None:
    with pytest.raises(KeyboardInterrupt), ending_on_interrupts(), not_swallowed():
        swallow()
        raise InputError("failed to format the config")
    with pytest.raises(InputError, match="its own"), ending_on_interrupts(), not_swallowed():
        raise InputError("its own")


def test_who_ignores_interrupts_goes_on_doing_so() -> None:
    """As nohup does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ending_on_interrupts():
            interrupt()
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_no_run_goes_on_after_one_was_swallowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    iterations = []

    def train(recipe: ToyRecipe, on_iteration, record):
        on_iteration()
        iterations.append(recipe.setting)
        swallow()
        on_iteration()
        iterations.append(recipe.setting)

    monkeypatch.setattr(ToyRecipe, "train", train)
    jobs = [Job(f"s{each:g}", ToyRecipe(tmp_path, each), "toy") for each in (1.0, 2.0)]
    with pytest.raises(KeyboardInterrupt), ending_on_interrupts():
        run_all(jobs)
    assert iterations == [1.0]


@pytest.mark.parametrize(
    ("command", "hint"), [("eval", ""), ("compare", "; the same call goes on")]
)
def test_a_command_ends_with_a_line_and_the_usual_status(
    command: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for ends in (interrupt, swallow):
        with pytest.raises(typer.Exit) as end, user_errors(command, after_interrupt=hint):
            ends()
        assert end.value.exit_code == 130
        assert capsys.readouterr().err == f"mmkd {command}: stopped{hint}\n"


def test_a_context_within_another_forgets_nothing() -> None:
    with pytest.raises(KeyboardInterrupt), ending_on_interrupts():
        try:
            with ending_on_interrupts():
                swallow()
        except KeyboardInterrupt:
            pass
