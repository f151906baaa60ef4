"""The teacher's share of a training step, without stalling the device."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["StepClock"]


class StepClock:
    """Times steps and the teacher's part in them.

    On CUDA, events are recorded on the stream and read once they have passed, some steps later;
    elsewhere the wall clock is read.

    Args:
        device: Where the model runs.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._marks: list[Any] = []
        self._pending: deque[list] = deque()
        self.share: float | None = None

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def start_step(self) -> None:
        """A step begins."""
        self._marks = [self._now()]

    @contextmanager
    def teacher(self) -> Iterator[None]:
        """Lasts as long as the teacher's part."""
        self._marks.append(self._now())
        yield
        self._marks.append(self._now())

    def stop_step(self) -> None:
        """The step ends; ``share`` becomes that of the newest step that can be read."""
        self._marks.append(self._now())
        self._pending.append(self._marks)
        while self._pending and (not self._cuda or self._pending[0][-1].query()):
            marks = self._pending.popleft()
            spans = [self._seconds(a, b) for a, b in zip(marks[1::2], marks[2::2], strict=False)]
            teacher = sum(spans[: (len(marks) - 2) // 2])
            self.share = teacher / max(self._seconds(marks[0], marks[-1]), 1e-12)

    def _seconds(self, start: Any, stop: Any) -> float:
        return start.elapsed_time(stop) / 1000 if self._cuda else stop - start
