"""What happens in the first iterations of a training, noted beside it. It knows no trainer."""

from __future__ import annotations

import gc
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.distillation import CHECKED_ITERATIONS, Distillation, Measured
from mmkd.distiller import Distiller, FeatureDistiller
from mmkd.doctor.examination import Costs, Examination, TeacherFinding, TermFinding
from mmkd.normalizers import BatchNormalizer
from mmkd.terms import Schedule, Term

__all__ = ["Watch", "forget"]

# In which a device and its caches come up, and terms are checked.
_WARM_UP = CHECKED_ITERATIONS
# Where a schedule is looked at.
_PLACES = 1000


class Watch:
    """Notes times, and of each term what it compares, and at what share.

    Args:
        iterations: To look at, beside a warm-up.
    """

    def __init__(self, iterations: int) -> None:
        self._iterations = iterations
        self._seconds: list[float] = []
        self._series: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._shapes: dict[str, tuple[Any, Any]] = {}
        self._sizes: dict[str, tuple[int, int] | None] = {}
        self._samples: dict[str, int] = {}
        self._peak: int | None = None

    def begin(
        self, student: nn.Module, distillation: Distillation | None, total: int, epoch: int
    ) -> None:
        """Listens to the terms.

        Args:
            student: On its device.
            distillation: What is trained with; None for the student alone.
            total: Iterations of the whole training.
            epoch: And of an epoch.
        """
        self._distillation, self._total, self._epoch = distillation, total, epoch
        self.parameters = sum(p.numel() for p in student.parameters())
        self._device = next(student.parameters()).device
        if distillation is None:
            return
        self._schedules = {term.name: term.schedule for term in distillation.terms}
        # Each as it is in full, or there is nothing to see of one that begins later.
        distillation.terms = [
            replace(term, schedule=Schedule(drop=term.schedule.drop)) for term in distillation.terms
        ]
        for term in distillation.terms:
            self._listen(term, distillation.distiller(term))
        measure: Callable[..., dict[str, Measured]] = distillation.measure

        def noted(*args: Any, **kwargs: Any) -> dict[str, Measured]:
            found = measure(*args, **kwargs)
            for name, each in found.items():
                self._series[name, "distance"].append(float(each.distance.detach()))
                self._series[name, "weight"].append(float(torch.as_tensor(each.weight).detach()))
            return found

        distillation.measure = noted  # type: ignore[method-assign]

    def _listen(self, term: Term, distiller: Distiller) -> None:
        inner: Callable[..., Tensor] = distiller.distance

        def distance(student: Any, teacher: Any, targets: Any = None) -> Tensor:
            self._shapes[term.name] = (_shapes_of(student), _shapes_of(teacher))
            self._sizes[term.name] = None if targets is None else targets.size
            return inner(student, teacher, targets)

        # Not by its call, which the distillation does not make.
        distiller.distance = distance  # type: ignore[method-assign]
        if isinstance(distiller, FeatureDistiller) and isinstance(
            distiller.normalizer, BatchNormalizer
        ):
            distiller.normalizer.register_forward_pre_hook(
                lambda module, args: self._samples.__setitem__(term.name, len(args[0]))
            )

    @property
    def is_first(self) -> bool:
        """Whether no iteration is over."""
        return not self._seconds

    def step_begins(self) -> None:
        """Starts the clock, after the data have come."""
        self._synchronize()
        self._start = time.perf_counter()

    def step_ends(self) -> bool:
        """Stops it.

        Returns:
            Whether enough is known.
        """
        self._synchronize()
        self._seconds.append(time.perf_counter() - self._start)
        if len(self._seconds) == _WARM_UP and self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        # In the first iteration a balanced weight is 0.
        if self._distillation is not None and len(self._seconds) > 1:
            self._note(self._distillation)
        if len(self._seconds) < _WARM_UP + self._iterations:
            return False
        self._peak = _peak_bytes(self._device)
        return True

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _note(self, distillation: Distillation) -> None:
        for name, arrived in distillation.arrived.items():
            # Where nothing of the task arrives, as behind a classifier that labels do not teach,
            # there is nothing to share.
            if float(arrived.task) > 0:
                for key in ("share", "cosine"):
                    value = float(getattr(arrived, key))
                    if math.isfinite(value):
                        self._series[name, key].append(value)

    def costs(self) -> Costs:
        """Of the steps that were made."""
        return Costs(median(self._seconds[_WARM_UP:]), self._peak)

    def examination(
        self,
        plain: Costs,
        teachers: Sequence[TeacherFinding],
        student_loss: float | None,
        teacher_share: float | None,
    ) -> Examination:
        """What was found.

        Args:
            plain: Of the student alone.
            teachers: What was found of them.
            student_loss, teacher_share: See :class:`mmkd.doctor.Examination`.
        """
        distillation = self._distillation
        assert distillation is not None
        return Examination(
            terms=tuple(self._finding(term, distillation) for term in distillation.terms),
            teachers=tuple(teachers),
            student_parameters=self.parameters,
            student_loss=student_loss,
            plain=plain,
            distilled=self.costs(),
            teacher_share=teacher_share,
            iterations=self._total,
        )

    def _finding(self, term: Term, distillation: Distillation) -> TermFinding:
        distiller = distillation.distiller(term)
        student, teacher = self._shapes.get(term.name, ((), ()))
        means: Mapping[str, float | None] = {
            key: fmean(values) if (values := self._series.get((term.name, key))) else None
            for key in ("distance", "weight", "share", "cosine")
        }
        return TermFinding(
            term.name,
            ", ".join(map(str, term.student)),
            ", ".join(map(str, term.teacher)),
            student,
            teacher,
            self._sizes.get(term.name),
            self._samples.get(term.name),
            means["distance"],
            means["weight"],
            means["share"],
            means["cosine"],
            distiller.balance is not None,
            _active(self._schedules[term.name], self._total, self._epoch)
            if distiller.is_on
            else 0.0,
        )


def _peak_bytes(device: torch.device) -> int | None:
    """Of a GPU since it was last reset, of a process since it began; None where it is not told."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows.
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def forget() -> None:
    """What a training that is over still holds in circles of references, on the device too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _shapes_of(side: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(each.shape) for each in (side if isinstance(side, Sequence) else [side]))


def _active(schedule: Schedule, iterations: int, epoch: int) -> float:
    places = range(0, iterations, max(1, iterations // _PLACES))
    return sum(schedule.factor(place, epoch) > 0 for place in places) / len(places)
