"""A Runner's checkpoints, read whole without executing what is pickled in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner import CheckpointLoader

from mmkd.checkpoint.safe_globals import global_name, only_allowing
from mmkd.errors import InputError

__all__ = ["checkpoints_as_data", "read_checkpoint"]


class _StandIn:
    """Takes the place of a class or function that a checkpoint names, and keeps what it is given.

    Allowing the real ones would allow everything: getattr leads from any of them to ``exec``, and
    numpy takes a crafted type's word for the memory behind it.
    """

    def __init__(self, *args: Any) -> None:
        self.args = args
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def real(self) -> Any:
        """What it stands for, where that is a plain value or known to be harmless."""
        return None


class _Type(_StandIn):
    def real(self) -> np.dtype:
        name = str(self.args[0])
        if not re.fullmatch(r"[biufcUS]\d+", name):
            raise ValueError(f"numpy values of type {name!r}")
        order = self.state[1] if self.state else "="
        return np.dtype(f"{order}{name}" if order in ("<", ">") else name)


class _Empty(_StandIn):
    def real(self) -> bytes:
        return b""


class _Scalar(_StandIn):
    def real(self) -> Any:
        dtype, data = self.args
        return np.frombuffer(data, dtype.real())[0]


class _Array(_StandIn):
    def real(self) -> np.ndarray:
        _, shape, dtype, is_fortran, data = self.state
        flat = np.frombuffer(_real(data), dtype.real())
        return flat.reshape(shape, order="F" if is_fortran else "C").copy()


class _Buffer(_StandIn):
    """Of a HistoryBuffer, with its history and without the functions pickled beside it."""

    def __new__(cls, *args: Any) -> _Buffer:
        made = super().__new__(cls)
        made.args, made.state = args, None
        return made

    def real(self) -> HistoryBuffer:
        history, counts = (_real(self.state[key]) for key in ("_log_history", "_count_history"))
        return HistoryBuffer(history, counts, int(self.state["max_length"]))


_STAND_INS: list[Any] = [
    (_StandIn, "builtins.getattr"),
    (_Empty, "builtins.bytes"),
    (_StandIn, "numpy.ndarray"),
    (_Type, "numpy.dtype"),
    *((_Array, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *((_Scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    (_Buffer, "mmengine.logging.history_buffer.HistoryBuffer"),
]

_stock_load = torch.load


def _allowed() -> list[Any]:
    """Where MMEngine allows the real ones around its own calls, they do not count; what a user has
    allowed does."""
    names = {name for _, name in _STAND_INS}
    others = torch.serialization.get_safe_globals()
    return [*(each for each in others if global_name(each) not in names), *_STAND_INS]


def read_checkpoint(file: Any, map_location: Any = None) -> Any:
    """A checkpoint as a Runner writes it: weights, optimizer, schedules, log buffers, plain values.

    Args:
        file: A path, or an open file.
        map_location: As torch's.

    Raises:
        InputError: The file is damaged, is no checkpoint, or holds more, which is not executed.
    """
    name = _name_of(file)
    try:
        with only_allowing(_allowed()):
            return _real(_stock_load(file, map_location=map_location, weights_only=True))
    except UnpicklingError as error:
        raise _Refused(
            f"{name} is no checkpoint, or holds more than weights and what a Runner keeps beside "
            f"them, and is not executed: {_reason(error)}. If you trust the file, set "
            "allow_pickle=True in the config"
        ) from error
    except Exception as error:  # A damaged file fails in any way.
        raise InputError(
            f"{name} is no checkpoint, or a damaged one: {type(error).__name__}: {_reason(error)}"
        ) from error


class _Refused(InputError):
    """Reading the file would execute something."""


def _name_of(file: Any) -> Any:
    return file if isinstance(file, str | Path) else getattr(file, "name", "the checkpoint")


def _reason(error: Exception) -> str:
    """In one line, without torch's advice to execute the file."""
    text = str(error).rpartition("WeightsUnpickler error:")[2].strip()
    named = re.search(r"GLOBAL (\S+)", text)
    if named is not None:
        return f"it names {named[1]}"
    if isinstance(error, UnpicklingError) and "weights_only" in text:
        return "it asks for more than weights"
    return text.partition("\n")[0].partition(" Please use")[0].rstrip(".")


def _real(value: Any) -> Any:
    """In place, since dicts carry attributes and are shared."""
    if isinstance(value, _StandIn):
        return value.real()
    if isinstance(value, dict):
        for key, each in value.items():
            value[key] = _real(each)
    elif isinstance(value, list):
        value[:] = map(_real, value)
    elif type(value) is tuple:
        return tuple(map(_real, value))
    return value


@contextmanager
def checkpoints_as_data(allow_pickle: bool = False) -> Iterator[None]:
    """Whatever a Runner loads in here, from a file or an address, is read so; other uses of
    ``torch.load`` stay as they are.

    Args:
        allow_pickle: Execute what a checkpoint holds beside, after a line of the log that says so.
    """
    stock = CheckpointLoader.__dict__["load_checkpoint"]

    def load(file: Any, map_location: Any = None, *args: Any, **kwargs: Any) -> Any:
        try:
            return read_checkpoint(file, map_location)
        except _Refused:
            if not allow_pickle:
                raise
            print_log(
                f"{_name_of(file)}: executing what is pickled in it (allow_pickle=True)", "current"
            )
            return _stock_load(file, map_location=map_location, weights_only=False)

    def load_checkpoint(
        cls: type, filename: str, map_location: Any = None, logger: Any = "current"
    ) -> Any:
        torch.load = load  # type: ignore[assignment]
        try:
            checkpoint = stock.__func__(cls, filename, map_location, logger)
        finally:
            torch.load = _stock_load
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get("meta"), dict):
            # The text of a config, of versions long past, which a resumed Runner would execute.
            checkpoint["meta"].pop("config", None)
        return checkpoint

    CheckpointLoader.load_checkpoint = classmethod(load_checkpoint)
    try:
        yield
    finally:
        CheckpointLoader.load_checkpoint = stock
