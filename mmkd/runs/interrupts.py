"""Ctrl-C ends a command, also where a library has taken it for an error of its own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["ending_on_interrupts", "not_swallowed", "raise_if_interrupted"]

_came = False


@contextmanager
def ending_on_interrupts() -> Iterator[None]:
    """Remembers Ctrl-C, which is raised as always, for the two below; for a whole command.

    Raises:
        KeyboardInterrupt: It came, whatever has become of it since.
    """
    global _came
    # Elsewhere signals never arrive; and who ignores this one, as nohup does, goes on doing so.
    is_ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if is_ours:
        _came = False
        signal.signal(signal.SIGINT, _notice)
    try:
        with not_swallowed():
            yield
    finally:
        if is_ours:
            _came = False
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _notice(number: int, frame: FrameType | None) -> None:
    global _came
    _came = True
    signal.default_int_handler(number, frame)


def raise_if_interrupted() -> None:
    """To be called now and then.

    Raises:
        KeyboardInterrupt: It came before, and something has swallowed it.
    """
    if _came:
        raise KeyboardInterrupt


@contextmanager
def not_swallowed() -> Iterator[None]:
    """Around calls of libraries: neither their errors nor their success hide an interrupt.

    Raises:
        KeyboardInterrupt: It came while they ran.
    """
    try:
        yield
    except Exception:
        raise_if_interrupted()
        raise
    raise_if_interrupted()
