"""What a training notes in its work dir as it goes, for whoever takes it up again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from mmkd.checkpoint.digests import tensors_digest
from mmkd.errors import InputError
from mmkd.work_dirs.run_files import STARTED

__all__ = [
    "TrainingRecord",
    "as_record",
    "read_record",
    "unfinished_file",
    "weights_digest",
    "write_json",
]


@dataclass
class TrainingRecord:
    """What a training leaves in its work dir as it goes, for whoever takes it up again.

    Args:
        file: Where it is kept.
        fingerprint: Digest of the run's.
        made_from: The fingerprint itself, as plain values; empty where an earlier version began it.
        initial_weights: :func:`weights_digest` of the network as training began; None before.
        epoch_seconds: Of the training epochs that are over, without evaluation.
    """

    file: Path
    fingerprint: str
    made_from: dict[str, Any] = field(default_factory=dict)
    initial_weights: str | None = None
    epoch_seconds: list[float] = field(default_factory=list)

    @classmethod
    def open(
        cls, work_dir: Path, fingerprint: str, made_from: dict[str, Any] | None = None
    ) -> TrainingRecord:
        """The record of the same run, where it was started before; or a new one.

        Raises:
            InputError: There is one that cannot be read.
        """
        file = work_dir / STARTED
        stored = read_record(file)
        if stored is not None and stored["fingerprint"] == fingerprint:
            with as_record(file):
                return cls(file, **stored)
        record = cls(file, fingerprint, made_from or {})
        record._write()
        return record

    @property
    def is_started(self) -> bool:
        """Whether checkpoints in the work dir are this run's."""
        return self.initial_weights is not None

    @property
    def training_seconds(self) -> float:
        """Of all epochs, those before an interruption included."""
        return sum(self.epoch_seconds)

    def start(self, network: nn.Module) -> None:
        """Notes the weights of a training that begins with its first epoch."""
        self.initial_weights = weights_digest(network)
        self._write()

    def start_epoch(self, epoch: int) -> None:
        """Starts the clock of an epoch, counted from 0."""
        del self.epoch_seconds[epoch:]
        self._begun = time.perf_counter()

    def end_epoch(self) -> None:
        """Stops it. To be called before a checkpoint is saved."""
        self.epoch_seconds.append(time.perf_counter() - self._begun)
        self._write()

    def _write(self) -> None:
        names = ("fingerprint", "made_from", "initial_weights", "epoch_seconds")
        write_json(self.file, {name: getattr(self, name) for name in names})


def weights_digest(network: nn.Module) -> str:
    """SHA-256 over names, types, shapes and values of all parameters and buffers."""
    return tensors_digest(network.state_dict().items())


def read_record(file: Path) -> dict[str, Any] | None:
    """What a file notes of a run, among it its ``fingerprint``; None where there is no file.

    Raises:
        InputError: The file is something else, or damaged.
    """
    if not file.is_file():
        return None
    with as_record(file):
        record = dict(json.loads(file.read_text()))
        record["fingerprint"] = str(record["fingerprint"])
        return record


@contextmanager
def as_record(file: Path) -> Iterator[None]:
    """Makes the errors of what is no record InputErrors."""
    try:
        yield
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(
            f"{file}: expected what a run of mmkd's notes there, found something else or half of "
            f"it ({error!r}). The folder is not overwritten: choose another, or move it away"
        ) from error


def write_json(file: Path, content: dict[str, Any]) -> None:
    """In one step: whoever is stopped while writing leaves no half of a file."""
    unfinished = unfinished_file(file)
    unfinished.write_text(json.dumps(content, indent=2) + "\n")
    unfinished.replace(file)


def unfinished_file(file: Path) -> Path:
    """Beside a file that is being written."""
    return file.with_name(f"{file.name}.part")
