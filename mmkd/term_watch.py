"""Says, early in a training, which of its terms cannot help, why, and what to change."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist

from mmkd.balance import Arrived, WeightRule
from mmkd.distributed import is_synchronized
from mmkd.linear_probe import ProbedPair
from mmkd.targets import Targets
from mmkd.term_warnings import TermWarning

__all__ = ["TermWatch", "TrainingWatch"]

# A term is watched for so many windows, each an epoch long, within limits; one of an epoch whose
# length is not known is 200 iterations.
_WINDOWS = 3
_SHORTEST, _LONGEST, _UNKNOWN_EPOCH = 50, 1000, 200
# Batches of the last window on which features are probed.
_PROBED_BATCHES = 24
# A mean cosine below it, by three standard errors below 0, opposes.
_OPPOSED = -0.1
_ERRORS = 3.0
# Of consecutive iterations, which are alike; the error of a mean is that of their means.
_BLOCKS = 10
# A distance has fallen where its mean has, by half its spread from one iteration to the next.
_LEAST_FALL = 0.5
# A teacher's lead in R² that is below it, with two standard errors added, is none.
_LEAST_LEAD = 0.01
# What stands for a value that is not known, in place of NaN, which is unlike itself.
_NOTHING = math.inf


class TermWatch:
    """Follows one term through its first iterations; later it costs nothing.

    Nothing is synchronised with the device but at the end of a window and, while features are
    probed, in some two dozen iterations. Distances are averaged over processes there, and all else
    is the same on each anyway, so that every process comes to the same warnings. A run that is
    resumed where an epoch began comes to those of one that was not stopped; resumed in the last
    window it leaves the probe out.

    Args:
        name: Of the term.
        title: By which warnings name it.
        elsewhere: Where else it could compare, for advice.
        device: The student's.
    """

    def __init__(
        self, name: str, title: str, elsewhere: str, device: torch.device | None = None
    ) -> None:
        self._name, self._title, self._elsewhere = name, title, elsewhere
        self._device = device or torch.device("cpu")
        self._length = 0
        self._count = self._judged = 0
        # By iteration: cosine, distance, whether the weight is at a bound.
        self._series: tuple[list[Tensor], ...] = ([], [], [])
        self._weight: Tensor | None = None
        self._share: Tensor | None = None
        self._warned: set[str] = set()
        self._probe: ProbedPair | None = ProbedPair()

    @property
    def is_over(self) -> bool:
        """Whether all is said."""
        return self._judged == _WINDOWS

    # What happens ---------------------------------------------------------------------------

    def measured(
        self,
        distance: Tensor,
        iterations_per_epoch: int,
        features: tuple[Tensor, Tensor] | None = None,
        targets: Targets | None = None,
    ) -> None:
        """After a forward pass in which the term was on.

        Args:
            distance: Unweighted, a scalar.
            iterations_per_epoch: 1 where it is not known.
            features: The student's and the teacher's; None where the term compares several levels
                at once.
            targets: What the images show, where it is known.
        """
        if self.is_over or (self._length and self._count == _WINDOWS * self._length):
            return
        if not self._length:
            known = _UNKNOWN_EPOCH if iterations_per_epoch == 1 else iterations_per_epoch
            self._length = min(max(known, _SHORTEST), _LONGEST)
        nothing = torch.full_like(distance.detach(), _NOTHING, dtype=torch.float32)
        for series, value in zip(self._series, (nothing, _known(distance), nothing), strict=True):
            series.append(value)
        if self._probe is not None and self._is_probed(self._count):
            is_taken = bool(features and targets and self._probe.add(*features, targets))
            self._probe = self._probe if is_taken else None
        self._count += 1

    def _is_probed(self, iteration: int) -> bool:
        into = iteration - (_WINDOWS - 1) * self._length
        return into >= 0 and into * _PROBED_BATCHES % self._length < _PROBED_BATCHES

    def arrived(self, arrived: Arrived, rule: WeightRule | None = None) -> None:
        """After the backward pass that followed."""
        if self.is_over or not self._count:
            return
        cosines, _, bounds = self._series
        cosines[-1] = _known(arrived.cosine)
        is_at_bound = getattr(rule, "is_at_bound", None)
        if rule is not None and is_at_bound is not None:
            bounds[-1] = _known(is_at_bound)
            self._weight, self._share = rule.weight.detach(), arrived.share

    def due(self) -> list[TermWarning]:
        """What is to be said after an iteration; where it ends a window, every process asks."""
        if self.is_over or not self._length or self._count < (self._judged + 1) * self._length:
            return []
        self._judged += 1
        cosines, distances, bounds = self._values()
        last = slice((self._judged - 1) * self._length, self._judged * self._length)
        before = slice(max(last.start - self._length, 0), last.start)
        is_end = self._judged == _WINDOWS
        found = {
            "opposed": _opposed(cosines[before], cosines[last]),
            "bound": self._bound(bounds[last]),
            "still": _still(distances, self._length) if is_end else None,
            "no lead": _no_lead(self._probe) if is_end else None,
        }
        if is_end:
            self._series, self._probe = ([], [], []), None
            self._weight = self._share = None
        texts = {kind: text for kind, text in found.items() if text and kind not in self._warned}
        self._warned |= set(texts)
        return [
            TermWarning(self._name, kind, f"{self._title}: {text.format(level=self._elsewhere)}")
            for kind, text in texts.items()
        ]

    def _values(self) -> list[list[float]]:
        stacked = torch.stack([torch.stack(each) for each in self._series])
        if is_synchronized(None):
            distances = stacked[1] / dist.get_world_size()
            dist.all_reduce(distances)
            stacked[1] = distances
            self._series = (self._series[0], list(distances), self._series[2])
        return stacked.cpu().double().tolist()

    def _bound(self, bounds: Sequence[float]) -> str | None:
        share = bounds.count(1.0) / max(len(bounds), 1)
        if share <= 0.5 or self._weight is None or self._share is None:
            return None
        return (
            f"its weight stands at a bound, {self._weight.item():.3g}, in {share:.0%} of "
            f"{len(bounds)} iterations, and its share of the gradient, now "
            f"{self._share.item():.2g}, does not reach what is set. Either its gradient at this "
            "feature or the task's is next to nothing: compare {level}, take another loss or "
            "normalizer, or give weight a number"
        )

    # State ----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Tensors on the CPU and plain values."""
        series = [torch.stack(each).cpu() for each in self._series if each]
        return dict(
            length=self._length,
            count=self._count,
            judged=self._judged,
            series=torch.stack(series) if series else torch.zeros(3, 0),
            warned=sorted(self._warned),
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts back what :meth:`state_dict` returned."""
        self._length, self._count = state["length"], state["count"]
        self._judged, self._warned = state["judged"], set(state["warned"])
        series = state["series"].to(self._device)
        self._series = (list(series[0]), list(series[1]), list(series[2]))
        is_begun = self._length and self._count > (_WINDOWS - 1) * self._length
        self._probe = None if is_begun else ProbedPair()

    def stop(self) -> None:
        """Watches no further: what was before is not known."""
        self._judged = _WINDOWS
        self._series, self._probe = ([], [], []), None


class TrainingWatch:
    """Follows all terms of a training.

    Args:
        terms: By name.

    Attributes:
        warnings: All that were due so far, those before a resume included.
    """

    def __init__(self, terms: Mapping[str, TermWatch]) -> None:
        self._terms = dict(terms)
        self.warnings: list[TermWarning] = []

    def __getitem__(self, term: str) -> TermWatch:
        return self._terms[term]

    def due(self) -> list[TermWarning]:
        """What is to be said after an iteration, once; every process asks."""
        found = [warning for term in self._terms.values() for warning in term.due()]
        self.warnings += found
        return found

    def state_dict(self) -> dict[str, Any]:
        """Tensors on the CPU and plain values."""
        return dict(
            terms={name: term.state_dict() for name, term in self._terms.items()},
            warnings=[tuple(each) for each in self.warnings],
        )

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Puts back what :meth:`state_dict` returned; what no state is known of is left alone
        from here on."""
        known = state or {}
        self.warnings = [TermWarning(*each) for each in known.get("warnings", ())]
        for name, term in self._terms.items():
            if name in known.get("terms", {}):
                term.load_state_dict(known["terms"][name])
            else:
                term.stop()


def _known(value: Tensor) -> Tensor:
    value = value.detach().float()
    return torch.where(torch.isfinite(value), value, _NOTHING)


# Verdicts -----------------------------------------------------------------------------------


class _Mean(NamedTuple):
    value: float
    error: float


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _mean_of(values: Sequence[float]) -> _Mean | None:
    """The mean of a series and its standard error; None where half of it is not known."""
    known = _finite(values)
    if not values or len(known) < max(len(values) / 2, 2 * _BLOCKS):
        return None
    size = len(known) / _BLOCKS
    blocks = [known[round(i * size) : round((i + 1) * size)] for i in range(_BLOCKS)]
    means = torch.tensor([math.fsum(each) / len(each) for each in blocks], dtype=torch.float64)
    return _Mean(math.fsum(known) / len(known), float(means.std()) / math.sqrt(_BLOCKS))


def _opposed(before: Sequence[float], last: Sequence[float]) -> str | None:
    """Of the cosines of two windows."""
    means = [_mean_of(before), _mean_of(last)]
    clear = [m for m in means if m and m.value < _OPPOSED and m.value + _ERRORS * m.error < 0]
    if len(clear) < 2:
        return None
    found = " and then ".join(f"{each.value:.2f} ± {each.error:.2f}" for each in clear)
    return (
        "its gradient opposes the task's at the student's feature: the mean cosine of the angle "
        f"between them is {found}, over {len(last)} iterations each. What it asks for is not what "
        "the task needs: compare {level}, give it a smaller weight or share, or end it early "
        "(schedule=dict(end=...))"
    )


def _still(distances: Sequence[float], length: int) -> str | None:
    """Of the distances of all windows."""
    part = max(length // 10, 10)
    first, last = _finite(distances[:part]), _finite(distances[-length:])
    if len(first) < part / 2 or len(last) < length / 2:
        return None
    begun, ended = math.fsum(first) / len(first), math.fsum(last) / len(last)
    spread = float(torch.tensor(last, dtype=torch.float64).std())
    if begun - ended > _LEAST_FALL * spread:
        return None
    return (
        f"its distance does not fall: {begun:.4g} over the first {part} iterations, {ended:.4g} "
        f"over the last {length} of {len(distances)}, where it varies by {spread:.2g} from one "
        "iteration to the next. The student does not follow: give it a larger weight or share or "
        "a projector that can (mmkd.MLPProjector, mmkd.ConvConnector), compare {level}, or look "
        "whether the teacher is given the images that it knows (the log tells)"
    )


def _no_lead(probe: ProbedPair | None) -> str | None:
    found = probe.scores() if probe is not None else None
    if found is None:
        return None
    student, teacher = found
    lead = teacher - student
    value, error = float(lead.mean()), float(lead.std()) / math.sqrt(len(lead))
    if value + 2 * error >= _LEAST_LEAD:
        return None
    return (
        "the teacher is no better than the student there: of what the images show where, a linear "
        f"probe on the teacher's feature explains {float(teacher.mean()):.1%}, on the student's "
        f"{float(student.mean()):.1%} (on held-out batches; lead {value:+.1%} ± {error:.1%}). Look "
        "whether the teacher's checkpoint is the trained one, and whether it is given the images "
        "that it knows (the log tells); compare {level}, or take a better teacher"
    )
