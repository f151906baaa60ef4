"""All terms of one training: built, switched, measured, and checked that they work."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from mmkd.balance import Arrived, GradientMeter, WeightRule, together
from mmkd.distiller import Distiller, FeatureDistiller
from mmkd.distributed import average_after_backward, broadcast
from mmkd.errors import InputError, TermError, naming
from mmkd.features import (
    FeatureTaps,
    channels_of,
    check_layout,
    entries,
    find_module,
    outputs_when_run,
    select,
)
from mmkd.normalizers import BatchNormalizer
from mmkd.numerics import at_least_float32
from mmkd.registry import arguments_of, find_class
from mmkd.targets import FROM_TEACHER, Targets
from mmkd.term_watch import TermWatch, TrainingWatch
from mmkd.terms import Tap, Term

__all__ = ["Distillation", "FeatureSource", "Measured"]

# Iterations of a term in which every value is looked at, besides those that showed it no box; later
# ones cost no synchronisation.
CHECKED_ITERATIONS = 10
# Below it, a distance is what rounding leaves of one feature that was computed in two ways.
_ROUNDING = 1e-9
# Beside the distillers' values in a state, no name of any of which it can be.
_FOLLOWERS = "teachers"


class FeatureSource(Protocol):
    """A teacher, as a distillation sees it."""

    introduction: str
    # What a resumed training needs of it.
    state: nn.Module | None
    # Modules of the student whose outputs it answers with; none of a network of its own.
    own_taps: tuple[str, ...]

    @property
    def probed(self) -> Mapping[str, Any]:
        """The tapped outputs for one blank image."""

    @property
    def converts_images(self) -> bool:
        """Whether it is given other images than the student."""

    def advance(self, iteration: int) -> None:
        """Called before each iteration, of which some may begin again; one that follows the student
        does so here."""

    def features(
        self, inputs: Tensor, context: Any = None, student: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        """The tapped outputs for the student's batch.

        Args:
            inputs: The batch, ``[N, 3, H, W]``.
            context: See :meth:`Distillation.measure`.
            student: The student's own outputs for it, of all modules that are tapped.
        """

    def module(self, path: str) -> nn.Module:
        """A module of the teacher's, with trained weights."""


class Measured(NamedTuple):
    """A term in one iteration: scalars, the first two with gradient.

    Args:
        distance: Without its weight.
        weighted: What joins the objective.
        weight: Times the schedule's factor.
        share: Of the gradient at the student's feature in the iteration before; see
            :class:`mmkd.balance.Arrived`.
    """

    distance: Tensor
    weighted: Tensor
    weight: Tensor | float
    share: Tensor | float


class Distillation:
    """The terms of one training of one student.

    It knows modules and batches, and no trainer: an adapter calls :meth:`begin` before each
    iteration, :meth:`arm` before the student's forward pass, and :meth:`measure` after it.

    Args:
        owner: Whose settings errors name (``'DistillHook'``).
        student: The model to tap.
        terms: What to compare; their taps name modules of ``student`` and of the teachers.
        teachers: By the name that ``Term.source`` gives.
        probe: Runs the student on one blank image, of the size on which the teachers were probed.
        size: Its height and width; None: features are taken as they are laid out.
        seed: Of the projectors' initial weights, and of which teachers are dropped when.

    Attributes:
        arrived: By term, what came back to its feature in the last backward pass.
        terms_on_two_images: Terms that fail on a batch of a single image, for it is a single
            sample, which has no variance.
        watch: Tells of terms that cannot help; an adapter asks it what is due after each iteration,
            and keeps its state.

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
        size: tuple[int, int] | None = None,
        seed: int = 0,
    ) -> None:
        self.owner = owner
        self._probe_size = size
        self._seed = seed
        self.terms = list(terms)
        self.teachers = dict(teachers)
        self.student = student
        self._taps: FeatureTaps | None = None
        self.factors: dict[str, float] = {}
        self.fired = False
        self.arrived: dict[str, Arrived] = {}
        # Shares by which a weight is known.
        self._balanced: set[str] = set()
        self._checked: Counter[str] = Counter()
        self._nonzero: set[str] = set()
        self._iteration = 0
        self._epoch = 1
        self.terms_on_two_images: list[Term] = []
        probed = self._probe(probe)
        self.distillers = self._build(probed, seed)
        self._divide([term.name for term in self.terms])
        self.watch = self._watch(probed)

    def _probe(self, run: Callable[[], Any]) -> dict[str, Any]:
        """The student's tapped outputs for a blank image; its mode is put back exactly."""
        for term in self.terms:
            with naming(f"{self.owner} {term.key}.student"):
                for tap in term.student:
                    find_module(self.student, tap.path)
        with naming(f"{self.owner} student"):
            return outputs_when_run(self.student, self._paths(), run)

    def _paths(self) -> list[str]:
        own = [tap.path for term in self.terms for tap in term.student]
        return [*own, *(path for each in self.teachers.values() for path in each.own_taps)]

    def _build(self, student: Mapping[str, Any], seed: int) -> nn.ModuleDict:
        distillers = {}
        for index, term in enumerate(self.terms):
            where = f"{self.owner} {term.key}"
            with naming(f"{where}.student"):
                ours = self._laid_out(student, term.student)
            with naming(f"{where}.teacher"):
                theirs = self._laid_out(self.teachers[term.source].probed, term.teacher)
            with naming(where):
                built = distillers[term.name] = self._built(term, ours, theirs, seed + index)
            if built.is_on and _is_of_single_samples(built, [*ours, *theirs]):
                self.terms_on_two_images.append(term)
        return nn.ModuleDict(distillers).to(next(self.student.parameters()).device)

    def _watch(self, student: Mapping[str, Any]) -> TrainingWatch:
        device = next(self.student.parameters()).device
        return TrainingWatch(
            {
                term.name: TermWatch(
                    term.name,
                    f"{self.owner} {term.key} ({', '.join(map(str, term.student))})",
                    _elsewhere(student, term),
                    device,
                )
                for term in self.terms
            }
        )

    def _laid_out(self, outputs: Mapping[str, Any], taps: Sequence[Tap]) -> list[Tensor]:
        features = _selected(outputs, taps)
        if self._probe_size is not None:
            for feature in features:
                check_layout(feature, self._probe_size)
        return features

    def _built(
        self, term: Term, ours: Sequence[Tensor], theirs: Sequence[Tensor], seed: int
    ) -> Distiller:
        cls = find_class(term.type)
        if not issubclass(cls, Distiller):
            raise InputError(f"type must be a mmkd.distiller.Distiller, got {cls.__name__}")
        # That of a FeatureDistiller is its loss's, which it looks at itself.
        if cls.takes.several_levels != term.takes_several and not issubclass(cls, FeatureDistiller):
            key = "levels=[...], all at once" if cls.takes.several_levels else "level"
            raise InputError(f"{cls.__name__} takes {key}")
        classifiers = self._classifiers(term)
        channels = [[channels_of(each) for each in side] for side in (ours, theirs)]
        inferred: dict[str, Any] = dict(
            student_channels=channels[0] if term.takes_several else channels[0][0],
            teacher_channels=channels[1] if term.takes_several else channels[1][0],
            seed=seed,
            **classifiers,
        )
        taken = arguments_of(cls)
        for name in classifiers:
            if name not in taken:
                raise InputError(f"{name} is given, but {cls.__name__} takes none")
        built = cls(**{**{k: v for k, v in inferred.items() if k in taken}, **term.parts})
        built.check_features(ours, theirs)
        return built

    def _classifiers(self, term: Term) -> dict[str, nn.Module]:
        found = {}
        if term.student_classifier is not None:
            with naming(f"{self.owner} {term.key}.student_classifier"):
                found["student_classifier"] = find_module(self.student, term.student_classifier)
        if term.teacher_classifier is not None:
            with naming(f"{self.owner} {term.key}.teacher_classifier"):
                found["teacher_classifier"] = self._teacher_module(term, term.teacher_classifier)
        return found

    def _teacher_module(self, term: Term, path: str | Sequence[str]) -> nn.Module:
        paths = [path] if isinstance(path, str) else path
        level = term.teacher[0].level
        modules = [
            self.teachers[term.source].module(each.replace("{level}", str(level))) for each in paths
        ]
        return modules[0] if isinstance(path, str) else nn.Sequential(*modules)

    def check_targets(self, targets: Callable[[], Targets]) -> None:
        """Raises unless a training's images show what the terms read of them.

        Args:
            targets: Of any image; called where a term reads any.

        Raises:
            ValueError: They do not, naming the term.
        """
        read = [
            (term, name)
            for term in self.terms
            for name in self.distiller(term).takes.targets
            if name != FROM_TEACHER
        ]
        shown = targets() if read else None
        for term, name in read:
            with naming(f"{self.owner} {term.key}"):
                getattr(shown, name)

    def distiller(self, term: Term) -> Distiller:
        """The distiller of a term."""
        return self.distillers[term.name]  # type: ignore[return-value]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What is trained beside the student."""
        return list(self.distillers.parameters())

    def synchronize(self) -> None:
        """Does for the distillers what DistributedDataParallel does for the student, which it
        wrapped before they existed: the first process's values, and averaged gradients."""
        broadcast(self.distillers)
        average_after_backward(self.parameters)

    @property
    def modules(self) -> list[nn.Module]:
        """All whose state belongs to the training: the distillers, and teachers that follow the
        student."""
        return [self.distillers, *self._followers().values()]

    def _followers(self) -> dict[str, nn.Module]:
        found = {name: teacher.state for name, teacher in self.teachers.items()}
        return {name: state for name, state in found.items() if state is not None}

    def state_dict(self) -> dict[str, Any]:
        """Of :attr:`modules`, on the CPU: the distillers' values by name, the teachers' below."""
        state: dict[str, Any] = _on_cpu(self.distillers)
        followers = {name: _on_cpu(module) for name, module in self._followers().items()}
        return {**state, _FOLLOWERS: followers} if followers else state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts back what :meth:`state_dict` returned.

        Raises:
            RuntimeError: It is of other terms.
        """
        with naming(f"{self.owner} terms (do they match the run that is resumed?)"):
            own = dict(state)
            followers = own.pop(_FOLLOWERS, {})
            self.distillers.load_state_dict(own)
            if followers.keys() != self._followers().keys():
                raise RuntimeError(
                    f"moving averages of the student are saved of the teachers {list(followers)}, "
                    f"expected {list(self._followers())}"
                )
            for name, module in self._followers().items():
                module.load_state_dict(followers[name])

    def attach(self) -> None:
        """Taps the student. Until :meth:`detach` it must be neither copied nor pickled."""
        self.detach()
        self._taps = FeatureTaps(self.student, self._paths())

    def detach(self) -> None:
        """Leaves the student as it was found."""
        if self._taps is not None:
            self._taps.detach()
        self._taps = None

    def begin(self, iteration: int, iterations_per_epoch: int) -> None:
        """Decides which terms are on in the iteration that is about to run."""
        self.fired = False
        self._iteration, self._epoch = iteration, iterations_per_epoch
        for teacher in self.teachers.values():
            teacher.advance(iteration)
        self.factors = {
            term.name: factor
            for term in self.terms
            if self.distiller(term).is_on
            and not term.schedule.is_dropped(iteration, term.source, self._seed)
            and (factor := term.schedule.factor(iteration, iterations_per_epoch)) > 0
        }
        self._divide(self.factors)

    def _divide(self, names: Container[str]) -> None:
        """Tells the terms that are on at the same time what they leave to the task."""
        found = {
            term.name: (self.distiller(term).balance, frozenset(term.student))
            for term in self.terms
            if term.name in names
        }
        with naming(f"{self.owner} terms"):
            together(found)

    def arm(self) -> None:
        """Records the student's features from here on, if any term is on."""
        if self.factors and self._taps is not None:
            self._taps.arm()
            self.fired = True

    def rest(self) -> None:
        """Records no more: the student's forward pass is over, and others may follow."""
        if self._taps is not None:
            self._taps.rest()

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
            raise TermError.at(self.owner, f"the terms {list(self.factors)} did not fire: {reason}")

    def measure(
        self,
        inputs: Tensor,
        context: Any = None,
        targets: Targets | None = None,
        timing: Callable[[], AbstractContextManager] = nullcontext,
        task: Tensor | None = None,
    ) -> dict[str, Measured]:
        """Every term that is on, after the student's forward pass.

        Args:
            inputs: The student's batch, ``[N, 3, H, W]``.
            context: Passed on to the teachers (data samples, for instance).
            targets: What the images show; looked at by terms that take them.
            timing: Its context lasts as long as the teachers run.
            task: The student's own loss, where it is known.

        Raises:
            RuntimeError: A tapped module did not run; in a term's first iterations also: it has
                no gradient, stays at 0, or it, its weighted value or its gradient is not finite.
        """
        assert self._taps is not None
        with naming(f"{self.owner} student"):
            student = self._taps.take()
        terms = [term for term in self.terms if term.name in self.factors]
        with timing():
            teacher = {
                source: self.teachers[source].features(inputs, context, student)
                for source in dict.fromkeys(term.source for term in terms)
            }
        size = Targets((inputs.shape[2], inputs.shape[3]))
        scores = cache(lambda source, paths: _scores(teacher[source], paths))
        measured = {}
        meter = GradientMeter(self._observe)
        for term in terms:
            with naming(f"{self.owner} {term.key}"):
                shown = targets if self.distiller(term).takes.targets else size
                if term.scores:
                    [theirs, *_] = _selected(teacher[term.source], term.teacher)
                    levels, total = scores(term.source, term.scores)
                    shown = (shown or size).with_scores(_nearest(levels, theirs), total)
                measured[term.name] = self._measured(
                    term, student, teacher[term.source], shown, meter, task
                )
                pair = None
                if not term.takes_several and not self.watch[term.name].is_over:
                    [ours] = _selected(student, term.student)
                    [theirs] = _selected(teacher[term.source], term.teacher)
                    pair = (ours, theirs)
                self.watch[term.name].measured(
                    measured[term.name].distance, self._epoch, pair, targets
                )
        return measured

    def features(
        self, run: Callable[[Tensor], Any], inputs: Tensor, context: Any = None
    ) -> dict[str, tuple[list[Tensor], list[Tensor]]]:
        """What each term compares for a batch, without gradient and with the student in evaluation
        mode: its features of either side, one a level.

        Args:
            run: Runs the student on the batch.
            inputs, context: See :meth:`measure`.

        Raises:
            RuntimeError: A tapped module did not run.
        """
        with naming(f"{self.owner} student"):
            student = outputs_when_run(self.student, self._paths(), lambda: run(inputs))
        teacher = {
            source: each.features(inputs, context, student)
            for source, each in self.teachers.items()
        }
        return {
            term.name: (
                _selected(student, term.student),
                _selected(teacher[term.source], term.teacher),
            )
            for term in self.terms
        }

    @property
    def shares(self) -> dict[str, Tensor]:
        """Of the gradient at their features, of the terms that are on, in the last backward pass;
        see :class:`mmkd.balance.Arrived`."""
        return {n: self.arrived[n].share for n in self.factors if n in self.arrived}

    def _observe(self, arrived: Mapping[str, Arrived]) -> None:
        """After a backward pass."""
        self.arrived.update(arrived)
        for name, each in arrived.items():
            balance = self.distillers[name].balance
            rule = balance if isinstance(balance, WeightRule) else None
            if rule is not None:
                rule.observe(each)
            self.watch[name].arrived(each, rule)

    def _measured(
        self,
        term: Term,
        student: Mapping,
        teacher: Mapping,
        targets: Targets | None,
        meter: GradientMeter,
        task: Tensor | None,
    ) -> Measured:
        ours = _selected(student, term.student)
        # Those of the student itself come with one.
        theirs = [each.detach() for each in _selected(teacher, term.teacher)]
        is_checked = self._checked[term.name] < CHECKED_ITERATIONS
        if is_checked:
            self._checked[term.name] += 1
            _check_features(term, ours, theirs)
        distiller = self.distiller(term)
        if is_checked and distiller.takes.targets and targets is not None:
            distiller.check_targets(targets)
        branches = [meter.branch(term.name, each) for each in ours]
        if distiller.balance is not None:
            # Without its loss scale, a gradient in half precision may be 0.
            branches = [at_least_float32(each) for each in branches]
        pair: tuple[Any, Any] = (branches, theirs)
        if not term.takes_several:
            pair = (branches[0], theirs[0])
        distance = distiller.distance(*pair, targets)
        if is_checked:
            self._check_distance(term, distance, targets)
        if distiller.balance is not None:
            distiller.balance.begin(distance.detach(), task)
        weight = self.factors[term.name] * distiller.weight
        share = self.arrived[term.name].share if term.name in self.arrived else 0.0
        measured = Measured(distance, weight * distance, weight, share)
        is_hidden = self._is_hidden(term)
        unit = None
        if is_checked or is_hidden:
            looked_at = distance if is_hidden else measured.weighted
            gradients = _gradients(looked_at, branches)
            if is_checked:
                with naming(f"{self.owner} {term.key}.weight"):
                    self._check_weighted(measured, gradients)
            if is_hidden:
                unit = torch.stack([each.square().sum() for each in gradients]).sum()
        meter.listen(term.name, measured.weighted, weight, unit, distiller.balance)
        return measured

    def _is_hidden(self, term: Term) -> bool:
        """Whether its weight is 0 for now, since no gradient was seen by which to choose it."""
        balance = self.distiller(term).balance
        if balance is None or term.name in self._balanced:
            return False
        if balance.weight > 0:
            self._balanced.add(term.name)
            return False
        return True

    def _check_distance(self, term: Term, distance: Any, targets: Targets | None) -> None:
        if not isinstance(distance, Tensor) or distance.ndim:
            found = f"shape {tuple(distance.shape)}" if isinstance(distance, Tensor) else distance
            raise RuntimeError(f"a distance must be a scalar tensor, got {found!r}")
        if not torch.isfinite(distance):
            raise RuntimeError(f"the distance is {distance.item()}: check the student's feature")
        if distance.abs() > _ROUNDING:
            self._nonzero.add(term.name)
        elif self.distiller(term).takes.targets and targets and targets.show_no_object:
            # What is guided by boxes has nothing to compare: an iteration that tells nothing.
            self._checked[term.name] -= 1
        elif self._checked[term.name] == CHECKED_ITERATIONS and term.name not in self._nonzero:
            raise RuntimeError(
                f"the distance stayed at 0 for {CHECKED_ITERATIONS} iterations: do student and "
                "teacher share the tapped weights? Or has the map a single cell, of which losses "
                "such as CWDLoss and ATLoss tell nothing: leave that level out. Or the batch a "
                "single image, where a loss such as SPLoss compares images with each other"
            )

    def _check_weighted(self, measured: Measured, gradients: Sequence[Tensor]) -> None:
        """Looks at the gradient apart from the task's, and before a loss scale."""
        found = f"in iteration {self._iteration}, with the weight {float(measured.weight):g},"
        if not torch.isfinite(measured.weighted):
            raise RuntimeError(
                f"{found} the distance {measured.distance.item():g} becomes "
                f"{measured.weighted.item()}: give a smaller weight"
            )
        if not all(torch.isfinite(each).all() for each in gradients):
            raise RuntimeError(
                f"{found} the gradient at the student's feature is not finite: give a smaller "
                "weight, or look at the loss"
            )


def _on_cpu(module: nn.Module) -> dict[str, Any]:
    return {name: value.cpu() for name, value in module.state_dict().items()}


def _gradients(value: Tensor, features: Sequence[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(value, features, retain_graph=True, allow_unused=True)
    return [
        torch.zeros_like(feature) if each is None else each
        for each, feature in zip(found, features, strict=True)
    ]


def _is_of_single_samples(distiller: Distiller, features: Sequence[Tensor]) -> bool:
    """Whether it takes the variance over samples, of which these features of one image give one."""
    if not isinstance(distiller, FeatureDistiller):
        return False
    is_one_location = any(each.numel() == channels_of(each) for each in features)
    is_pooled = distiller.view == "global" or is_one_location
    return is_pooled and isinstance(distiller.normalizer, BatchNormalizer)


def _selected(outputs: Mapping[str, Any], taps: Sequence[Tap]) -> list[Tensor]:
    return [select(outputs[tap.path], tap.level) for tap in taps]


def _scores(
    outputs: Mapping[str, Any], heads: Sequence[Sequence[str]]
) -> tuple[list[Tensor], Tensor]:
    """The largest class probability at each cell ``[N, 1, h, w]`` of every level of a head, of
    logits ``[N, A K, h, w]``, times that of an object where those are given too; and their sum over
    all."""
    factors = [
        [_largest(each) for path in paths for each in entries(outputs[path]).values()]
        for paths in heads
    ]
    levels = [functools.reduce(torch.mul, each) for each in zip(*factors, strict=True)]
    return levels, torch.stack([each.sum() for each in levels]).sum()


def _largest(logits: Tensor) -> Tensor:
    """Probability, over channels: ``[N, 1, h, w]``."""
    return at_least_float32(logits.detach()).amax(dim=1, keepdim=True).sigmoid()


def _nearest(levels: Sequence[Tensor], feature: Tensor) -> Tensor:
    """The map ``[N, 1, h, w]`` of the feature's own grid, else of the nearest number of cells."""
    cells = feature.numel() / (len(feature) * channels_of(feature))
    return min(levels, key=lambda each: abs(math.log(each[0].numel() / cells)))


def _elsewhere(outputs: Mapping[str, Any], term: Term) -> str:
    """Where else a term could compare, as far as its first tap tells."""
    tap = term.student[0]
    output = outputs[tap.path]
    keys = list(entries(output))
    is_counted = tap.level == -1 or not isinstance(output, dict)
    own = keys[tap.level] if keys and is_counted and isinstance(tap.level, int) else tap.level
    others = [repr(key) for key in keys if key != own]
    if term.takes_several or not others:
        return "another level"
    return f"another level of {tap.path} (level={' or '.join(others)})"


def _check_features(term: Term, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    for tap, feature in zip(term.student, ours, strict=True):
        if not feature.requires_grad:
            raise RuntimeError(
                f"the student's feature {tap.path!r} has no gradient, so nothing would be "
                "learned: is that module frozen (frozen_stages, freeze, requires_grad)?"
            )
    for tap, feature in zip(term.teacher, theirs, strict=True):
        if not torch.isfinite(feature).all():
            raise RuntimeError(
                f"the teacher's feature {tap.path!r} holds NaN or infinite values: check "
                "its checkpoint, and its precision if this is mixed-precision training"
            )
