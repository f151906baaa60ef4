"""All terms of one training: built, switched, measured, and checked that they work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from mmkd.distiller import FeatureDistiller
from mmkd.engine.step_clock import StepClock
from mmkd.features import FeatureTaps, channels_of, find_module, select
from mmkd.terms import Term, naming

__all__ = ["Distillation", "FeatureSource", "Measured"]

# Iterations of a term in which every value is looked at; later ones cost no synchronisation.
CHECKED_ITERATIONS = 10
# Below it, a distance is what rounding leaves of one feature that was computed in two ways.
_ROUNDING = 1e-9


class FeatureSource(Protocol):
    """A teacher, as a distillation sees it."""

    @property
    def probed(self) -> Mapping[str, Any]:
        """The tapped outputs for one blank image."""

    def features(self, inputs: Tensor, context: Any) -> Mapping[str, Any]:
        """The tapped outputs for the student's batch."""

    def module(self, path: str) -> nn.Module:
        """A module of the teacher's, with trained weights."""


class Measured(NamedTuple):
    """A term in one iteration: scalars, both with gradient."""

    distance: Tensor
    weighted: Tensor


class Distillation:
    """The terms of one training of one student.

    It knows modules and batches, and no trainer: an adapter calls :meth:`begin` before each
    iteration, :meth:`arm` before the student's forward pass, and :meth:`measure` after it.

    Args:
        owner: Whose settings errors name (``'DistillHook'``).
        student: The model to tap.
        terms: What to compare; their taps name modules of ``student`` and of the teachers.
        teachers: By the name that ``Term.source`` gives.
        probe: Runs the student on one blank image.
        seed: Of the projectors' initial weights.

    Raises:
        ValueError: A tap or a part that does not fit, naming the term.
    """

    def __init__(
        self,
        owner: str,
        student: nn.Module,
        terms: Sequence[Term],
        teachers: Mapping[str, FeatureSource],
        probe: Callable[[], Any],
        *,
        seed: int = 0,
    ) -> None:
        self.owner = owner
        self.terms = list(terms)
        self.teachers = dict(teachers)
        self._student = student
        self._taps: FeatureTaps | None = None
        self.factors: dict[str, float] = {}
        self.fired = False
        self._checked: Counter[str] = Counter()
        self._nonzero: set[str] = set()
        self.distillers = self._build(self._probe(probe), seed)

    def _probe(self, run: Callable[[], Any]) -> dict[str, Any]:
        """The student's tapped outputs for a blank image; its mode is put back exactly."""
        for term in self.terms:
            with naming(f"{self.owner} {term.key}.student"):
                find_module(self._student, term.student)
        modes = {module: module.training for module in self._student.modules()}
        paths = [term.student for term in self.terms]
        taps = FeatureTaps(self._student, paths, stop_when_complete=True)
        try:
            self._student.eval()
            with naming(f"{self.owner} student"), torch.no_grad(), taps.recording():
                run()
            with naming(f"{self.owner} student"):
                return taps.take()
        finally:
            taps.detach()
            for module, mode in modes.items():
                module.training = mode

    def _build(self, student: Mapping[str, Any], seed: int) -> nn.ModuleDict:
        distillers = {}
        for index, term in enumerate(self.terms):
            where = f"{self.owner} {term.key}"
            with naming(f"{where}.student"):
                found = select(student[term.student], term.student_level)
            with naming(f"{where}.teacher"):
                target = select(self.teachers[term.source].probed[term.teacher], term.teacher_level)
            with naming(where):
                channels = dict(
                    student_channels=channels_of(found), teacher_channels=channels_of(target)
                )
                distillers[term.name] = FeatureDistiller(
                    **{**channels, **self._classifiers(term), **term.parts}, seed=seed + index
                )
        return nn.ModuleDict(distillers).to(next(self._student.parameters()).device)

    def _classifiers(self, term: Term) -> dict[str, nn.Module]:
        found = {}
        if term.student_classifier is not None:
            with naming(f"{self.owner} {term.key}.student_classifier"):
                found["student_classifier"] = find_module(self._student, term.student_classifier)
        if term.teacher_classifier is not None:
            with naming(f"{self.owner} {term.key}.teacher_classifier"):
                found["teacher_classifier"] = self.teachers[term.source].module(
                    term.teacher_classifier
                )
        return found

    def distiller(self, term: Term) -> FeatureDistiller:
        """The distiller of a term."""
        return self.distillers[term.name]  # type: ignore[return-value]

    def attach(self) -> None:
        """Taps the student. Until :meth:`detach` it must be neither copied nor pickled."""
        self.detach()
        self._taps = FeatureTaps(self._student, [term.student for term in self.terms])

    def detach(self) -> None:
        """Leaves the student as it was found."""
        if self._taps is not None:
            self._taps.detach()
        self._taps = None

    def begin(self, iteration: int, iterations_per_epoch: int) -> None:
        """Decides which terms are on in the iteration that is about to run."""
        self.fired = False
        self.factors = {
            term.name: factor
            for term in self.terms
            if self.distiller(term).weight > 0
            and (factor := term.schedule.factor(iteration, iterations_per_epoch)) > 0
        }

    def arm(self) -> None:
        """Records the student's features from here on, if any term is on."""
        if self.factors and self._taps is not None:
            self._taps.arm()
            self.fired = True

    def release(self) -> None:
        """Forgets what was recorded, of a forward pass that failed."""
        if self._taps is not None:
            self._taps.disarm()
        self.fired = False

    def check_fired(self, reason: str) -> None:
        """Raises unless the iteration that ran has measured what is on.

        Raises:
            RuntimeError: With ``reason``, a term did not fire.
        """
        if self.factors and not self.fired:
            raise RuntimeError(
                f"{self.owner}: the terms {list(self.factors)} did not fire: {reason}"
            )

    def measure(
        self,
        inputs: Tensor,
        context: Any = None,
        clock: StepClock | None = None,
        labels: Callable[[], Tensor] | None = None,
    ) -> dict[str, Measured]:
        """Every term that is on, after the student's forward pass.

        Args:
            inputs: The student's batch, ``[N, 3, H, W]``.
            context: Passed on to the teachers (data samples, for instance).
            clock: Told when the teachers begin and end.
            labels: Gives the images' labels, ``[N]`` or ``[N, K]``; asked by losses that take them.

        Raises:
            RuntimeError: A tapped module did not run; in a term's first iterations also: it has
                no gradient, stays at 0 or is not finite.
        """
        assert self._taps is not None
        with naming(f"{self.owner} student"):
            student = self._taps.take()
        terms = [term for term in self.terms if term.name in self.factors]
        if clock:
            clock.start_teacher()
        teacher = {
            source: self.teachers[source].features(inputs, context)
            for source in dict.fromkeys(term.source for term in terms)
        }
        if clock:
            clock.stop_teacher()
        measured = {}
        for term in terms:
            with naming(f"{self.owner} {term.key}"):
                distance = self._distance(term, student, teacher[term.source], labels)
            factor = self.factors[term.name] * self.distiller(term).weight
            measured[term.name] = Measured(distance, factor * distance)
        return measured

    def _distance(
        self,
        term: Term,
        student: Mapping,
        teacher: Mapping,
        labels: Callable[[], Tensor] | None,
    ) -> Tensor:
        distiller = self.distiller(term)
        of_labels = labels() if labels is not None and distiller.takes_labels else None
        ours = select(student[term.student], term.student_level)
        theirs = select(teacher[term.teacher], term.teacher_level)
        if self._checked[term.name] == CHECKED_ITERATIONS:
            return distiller.distance(ours, theirs, of_labels)
        self._checked[term.name] += 1
        if not ours.requires_grad:
            raise RuntimeError(
                f"the student's feature {term.student!r} has no gradient, so nothing would be "
                "learned: is that module frozen (frozen_stages, freeze, requires_grad)?"
            )
        if not torch.isfinite(theirs).all():
            raise RuntimeError(
                f"the teacher's feature {term.teacher!r} holds NaN or infinite values: check "
                "its checkpoint, and its precision if this is mixed-precision training"
            )
        distance = distiller.distance(ours, theirs, of_labels)
        if not torch.isfinite(distance):
            raise RuntimeError(f"the distance is {distance.item()}: check the student's feature")
        if distance.abs() > _ROUNDING:
            self._nonzero.add(term.name)
        elif self._checked[term.name] == CHECKED_ITERATIONS and term.name not in self._nonzero:
            raise RuntimeError(
                f"the distance stayed at 0 for {CHECKED_ITERATIONS} iterations: do student and "
                "teacher share the tapped weights?"
            )
        return distance
