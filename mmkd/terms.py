"""The ``terms`` setting: which features are compared, how, and when."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from random import Random
from typing import Any

from mmkd.balance import parse_weight
from mmkd.errors import InputError, InputTypeError, check_keys, naming
from mmkd.features import Level, Stride
from mmkd.losses.base import Takes
from mmkd.registry import arguments_of, find_class
from mmkd.targets import FROM_TEACHER

__all__ = ["DEFAULTS", "Schedule", "Tap", "Term", "parse_terms"]


@dataclass(frozen=True)
class Schedule:
    """The factor of a term's weight over training.

    Args:
        begin: Where the term begins; 0 before.
        end: Where it ends (distil, then fine-tune alone); None for never. From there on the
            teacher does not run.
        ramp: Length of the linear rise from 0 at ``begin`` to 1.
        decay: Length of the fall to 0 at ``end``, along half a cosine.
        by_epoch: Whether the four count epochs (fractions allowed) or iterations.
        drop: How probably a teacher is left out of an iteration, with all of its terms that say so
            (Son et al., *Densely Guided Knowledge Distillation*, ICCV 2021); it does not run then.

    Raises:
        ValueError: begin, ramp or decay negative, end not after begin; a decay without an end, or
            one that begins before the rise is over; a drop that is no probability below 1.
    """

    begin: float = 0
    end: float | None = None
    ramp: float = 0
    decay: float = 0
    by_epoch: bool = True
    drop: float = 0

    def __post_init__(self) -> None:
        if min(self.begin, self.ramp, self.decay) < 0:
            raise ValueError(f"begin, ramp and decay must be 0 or more, got {self}")
        if self.end is not None and self.end <= self.begin:
            raise ValueError(f"end must come after begin, got {self}")
        if self.decay and (self.end is None or self.end - self.decay < self.begin + self.ramp):
            raise ValueError(f"decay must lie between the rise and an end, got {self}")
        if not 0 <= self.drop < 1:
            raise ValueError(f"drop must be 0 or more and below 1, got {self}")

    def factor(self, iteration: int, iterations_per_epoch: int) -> float:
        """The factor, 0 to 1, of the iteration that is about to run (counted from 0)."""
        now = iteration / iterations_per_epoch if self.by_epoch else iteration
        if now < self.begin or (self.end is not None and now >= self.end):
            return 0.0
        if self.end is not None and now > self.end - self.decay:
            return (1 + math.cos(math.pi * (now - self.end + self.decay) / self.decay)) / 2
        return min(1.0, (now - self.begin) / self.ramp) if self.ramp else 1.0

    def is_dropped(self, iteration: int, source: str, seed: int) -> bool:
        """Whether it is left out of the iteration that is about to run: the same on every process,
        and in a resumed run.

        Args:
            iteration: Counted from 0.
            source: The teacher's name.
            seed: Of the run.
        """
        # Text seeds alike in every process, where a hash of it would not.
        return self.drop > 0 and Random(f"{seed} {source} {iteration}").random() < self.drop


@dataclass(frozen=True)
class Tap:
    """Where a feature comes from: a module by its path, and which of its outputs."""

    path: str
    level: Level = -1

    def __str__(self) -> str:
        return f"{self.path}[{self.level}]"


@dataclass(frozen=True)
class Term:
    """What one term compares, and when.

    Args:
        name: In logs.
        source: The teacher's name.
        student, teacher: Where the features come from, one tap a level; in the same order where
            they are compared in pairs.
        scores: The teacher's modules that give logits of what is at a cell, for what weighs cells
            by its probability: of the classes, and of there being an object at all where its head
            tells them apart; of each all levels.
        cells: How many a level's map must have where every stride is compared.
        takes_several: Whether the levels are compared all at once (``levels``).
        student_classifier, teacher_classifier: Paths, for a loss that looks through one; of the
            teacher's also several in a list, which follow one another, with ``{level}`` for the
            number of the level that is compared.
        schedule: When it is on.
        type: Of its distiller.
        parts: The distiller's own arguments.
    """

    name: str
    source: str
    student: tuple[Tap, ...] = (Tap("backbone"),)
    teacher: tuple[Tap, ...] = (Tap("backbone"),)
    scores: tuple[tuple[str, ...], ...] = ()
    cells: int = 1
    takes_several: bool = False
    student_classifier: str | None = None
    teacher_classifier: str | Sequence[str] | None = None
    schedule: Schedule = field(default_factory=Schedule)
    type: str = "mmkd.FeatureDistiller"
    parts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The config key that errors name."""
        return f"terms.{self.name}"

    @property
    def teacher_paths(self) -> tuple[str, ...]:
        """All modules of the teacher's that are read."""
        return (
            *(tap.path for tap in self.teacher),
            *(path for each in self.scores for path in each),
        )

    def with_teacher_taps(self, found: Callable[[Tap], Tap]) -> Term:
        """This term with other places in the teacher to compare.

        Args:
            found: Of each tap, the other.
        """
        return self.replace(teacher=tuple(map(found, self.teacher)))

    def replace(self, **changes: Any) -> Term:
        """This term with other values of some fields."""
        return dataclasses.replace(self, **changes)


# What is distilled where no terms are given: of detectors with a neck, its maps by CWD; else every
# map of the backbone from stride 8 up, by LogSum. Each at half of its gradient. Chosen in
# benchmarks/results/proving_ground.md.
_SHARE = dict(share=0.5)
DEFAULTS: Mapping[str, Mapping[str, Any]] = dict(
    neck=dict(
        student="neck",
        teacher="neck",
        stride="all",
        loss=dict(type="mmkd.CWDLoss"),
        weight=_SHARE,
    ),
    backbone=dict(stride="all", weight=_SHARE),
)
_SIDES = ("student", "teacher")
# Where a detector's class logits are found, and those of an object in heads that have them.
_SCORES = (("head.classes",), ("head.objectness",))
_Compared = tuple[str, tuple[Tap, ...], tuple[Tap, ...]]
# The ways of saying which levels: a term each, or one term of them all.
_EACH = ("level", "stride")
_TOGETHER = ("levels", "strides")


def _names_of(key: str) -> tuple[str, ...]:
    """A key of levels, for both sides and for either."""
    return (key, *(f"{side}_{key}" for side in _SIDES))


_TERM_KEYS = (
    "type",
    "source",
    *_SIDES,
    *(name for key in (*_EACH, *_TOGETHER) for name in _names_of(key)),
    *(f"{side}_classifier" for side in _SIDES),
    "schedule",
)


def parse_terms(
    terms: Mapping[str, Mapping[str, Any]] | None,
    sources: Sequence[str],
    owner: str = "",
    default: str = "backbone",
) -> list[Term]:
    """Reads the ``terms`` setting.

    Args:
        terms: Name to settings. None: one of :data:`DEFAULTS` each. A ``level`` or ``stride``
            that is a list makes one term, with a projector of its own, per entry; ``levels`` or
            ``strides`` make one term of them all, for a loss or distiller that takes several at
            once. ``student`` and ``teacher`` may be lists of modules: a term a pair, or one of them
            all where that is what the loss or distiller takes.
        sources: The teachers' names.
        owner: Whose setting it is (``'DistillHook'``), for errors.
        default: Which of them.

    Raises:
        ValueError: No terms, an unknown key or type, two terms of one name, or a teacher that is
            not named.
        TypeError: Something other than a dict.
    """
    if terms is None:
        terms = _default(sources, default)
    where = f"{owner} terms".strip()
    if not isinstance(terms, Mapping):
        raise InputTypeError(
            f"{where} must be a dict of name=dict(...), got {terms!r}", setting=where
        )
    if not terms:
        raise InputError(f"{where} is empty: leave it out for the default term", setting=where)
    parsed = [
        term
        for name, settings in terms.items()
        for term in _parse(f"{where}.{name}", name, settings, sources)
    ]
    names = [term.name for term in parsed]
    for name in names:
        if names.count(name) > 1:
            raise InputError.at(
                where, f"two terms are called {name!r}: rename one, or drop a repeated level"
            )
    return parsed


def _default(sources: Sequence[str], place: str) -> dict[str, dict[str, Any]]:
    """A term a teacher; several have the share among them."""
    term = {**DEFAULTS[place], "weight": dict(share=_SHARE["share"] / len(sources))}
    return {place if len(sources) == 1 else name: {**term, "source": name} for name in sources}


def _parse(
    where: str, name: str, settings: Mapping[str, Any], sources: Sequence[str]
) -> list[Term]:
    if not isinstance(name, str):
        raise InputTypeError(f"{where}: a term's name must be text, got {name!r}", setting=where)
    if not isinstance(settings, Mapping):
        raise InputTypeError(f"{where} must be a dict, got {settings!r}", setting=where)
    kind = settings.get("type", Term.type)
    with naming(f"{where}.type"):
        arguments = _arguments(kind)
    own = [key for key in arguments if key not in _TERM_KEYS]
    check_keys(where, settings, [*_TERM_KEYS, *own])
    if "weight" in own:
        parse_weight(settings.get("weight", 1.0), f"{where}.weight")
    source = settings.get("source", sources[0] if len(sources) == 1 else None)
    if source not in sources:
        raise InputError(
            f"{where}.source must name a teacher, one of {list(sources)}, got {source!r}",
            setting=f"{where}.source",
        )
    shared: dict[str, Any] = dict(
        source=source,
        student_classifier=settings.get("student_classifier"),
        teacher_classifier=settings.get("teacher_classifier"),
        schedule=_schedule(f"{where}.schedule", settings.get("schedule")),
        type=kind,
        parts={key: settings[key] for key in own if key in settings},
    )
    takes = _takes(kind, settings)
    takes_scores = any(FROM_TEACHER in each.targets for each in takes)
    whole = getattr(find_class(kind), "takes", None)
    in_pairs = not isinstance(whole, Takes) or whole.in_pairs
    several = _several(where, settings, in_pairs)
    modules = _modules(where, settings, in_pairs)
    # Modules that are listed say themselves whether they go together.
    is_joint = several is not None or (bool(modules) and any(e.several_levels for e in takes))
    compared = (
        _taps(where, settings, several) if modules is None else _of_modules(modules, is_joint)
    )
    return [
        Term(
            name=name + suffix,
            student=ours,
            teacher=theirs,
            scores=_SCORES if takes_scores else (),
            cells=max((each.cells for each in takes), default=1),
            takes_several=is_joint,
            **shared,
        )
        for suffix, ours, theirs in compared
    ]


def _modules(where: str, settings: Mapping[str, Any], in_pairs: bool) -> list[Sequence[str]] | None:
    """The modules of either side, where they are lists of them; None where they are not."""
    sides = [settings.get(side, "backbone") for side in _SIDES]
    if not any(isinstance(side, list | tuple) for side in sides):
        return None
    if not all(isinstance(side, list | tuple) and side for side in sides):
        raise InputError.at(
            where,
            "expected lists of modules of both student and teacher, one module or more each, got "
            f"{sides[0]!r} and {sides[1]!r}",
        )
    if in_pairs and len(sides[0]) != len(sides[1]):
        raise InputError.at(
            where,
            f"modules of student and teacher are compared in pairs, got {sides[0]!r} and "
            f"{sides[1]!r}",
        )
    used = [name for key in (*_EACH, *_TOGETHER) for name in _names_of(key) if name in settings]
    if used:
        raise InputError.at(
            where, f"of listed modules the last output is taken: leave {used[0]} out"
        )
    return sides


def _of_modules(modules: Sequence[Sequence[str]], is_joint: bool) -> list[_Compared]:
    student, teacher = (tuple(map(Tap, side)) for side in modules)
    if is_joint:
        return [("", student, teacher)]
    pairs = enumerate(zip(student, teacher, strict=True))
    return [(f"_{index}", (ours,), (theirs,)) for index, (ours, theirs) in pairs]


def _taps(
    where: str, settings: Mapping[str, Any], several: list[list[Level]] | None
) -> list[_Compared]:
    """What each term of these settings compares, and what its name ends in."""
    if several is not None:
        ours, theirs = (
            tuple(Tap(settings.get(side, "backbone"), level) for level in levels)
            for side, levels in zip(_SIDES, several, strict=True)
        )
        return [("", ours, theirs)]
    key = _only(where, [key for key in _EACH if key in settings]) or _EACH[0]
    level = settings.get(key, -1)
    levels = list(level) if isinstance(level, list | tuple) else [level]
    if not levels:
        raise InputError(f"{where}.{key} is empty", setting=f"{where}.{key}")
    own = [
        _only(where, [f"{side}_{each}" for each in _EACH if f"{side}_{each}" in settings])
        for side in _SIDES
    ]
    for mine, other in zip(own, _SIDES[::-1], strict=True):
        if key not in settings and "stride" in (mine or "") and None in own:
            raise InputError.at(
                where, f"{mine} says nothing of the {other}: give {other}_stride or {other}_level"
            )
    pairs = [
        [
            _tap(where, settings, side, name or key, each)
            for side, name in zip(_SIDES, own, strict=True)
        ]
        for each in levels
    ]
    letter = "s" if key == "stride" else ""
    return [
        ("" if len(levels) == 1 else f"_{letter}{each}", (ours,), (theirs,))
        for each, (ours, theirs) in zip(levels, pairs, strict=True)
    ]


def _only(where: str, given: Sequence[str]) -> str | None:
    """The one of several settings that say the same which is given; None of them."""
    if len(given) > 1:
        raise InputError.at(where, f"{given[0]} and {given[1]} exclude each other: give one")
    return given[0] if given else None


def _tap(where: str, settings: Mapping[str, Any], side: str, name: str, value: Any) -> Tap:
    """Of one side: ``name`` is its own setting of the level or that of both, whose ``value`` is."""
    level = settings[name] if name.startswith(side) else value
    if name.endswith("stride"):
        level = _stride(f"{where}.{name}", level)
    return Tap(settings.get(side, "backbone"), level)


def _stride(where: str, value: Any) -> Stride:
    if value == "all":
        return Stride(None)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(
            f"{where} must be a number of pixels, 1 or more, or 'all', got {value!r}",
            setting=where,
        )
    return Stride(value)


def _arguments(kind: str) -> list[str]:
    """What a distiller type takes of a term; the rest is given by the training."""
    given = ("seed", "student_classifier", "teacher_classifier")
    return [name for name in arguments_of(find_class(kind)) if name not in given]


def _takes(kind: str, settings: Mapping[str, Any]) -> list[Takes]:
    """What is taken by the loss or the distiller that compares, as far as it is known."""
    loss = settings.get("loss")
    named = loss.get("type") if isinstance(loss, Mapping) else loss
    found = [getattr(loss, "takes", None)]
    # One that is not known is refused where it is built.
    with suppress(ValueError):
        found.append(getattr(find_class(named if isinstance(named, str) else kind), "takes", None))
    return [each for each in found if isinstance(each, Takes)]


def _schedule(where: str, settings: Any) -> Schedule:
    if not isinstance(settings or {}, Mapping):
        raise InputTypeError(f"{where} must be a dict, got {settings!r}", setting=where)
    begin_and_end = dict(settings or {})
    check_keys(where, begin_and_end, [f.name for f in fields(Schedule)])
    with naming(where):
        return Schedule(**begin_and_end)


def _several(where: str, settings: Mapping[str, Any], in_pairs: bool) -> list[list[Level]] | None:
    """The levels of either side of a term that takes several at once; None for one level."""
    used = [key for key in _TOGETHER if any(name in settings for name in _names_of(key))]
    key = _only(where, used)
    if key is None:
        return None
    single = [name for each in _EACH for name in _names_of(each) if name in settings]
    if single:
        raise InputError.at(
            where, f"{single[0]} (a term each) and {key} (one term of all) exclude each other"
        )
    found = [settings.get(f"{side}_{key}", settings.get(key)) for side in _SIDES]
    for levels in found:
        if not isinstance(levels, list | tuple) or not levels:
            raise InputError(
                f"{where}.{key} must be a list of {key}, got {levels!r}",
                setting=f"{where}.{key}",
            )
    if in_pairs and len(found[0]) != len(found[1]):
        raise InputError.at(
            where,
            f"student_{key} and teacher_{key} are compared in pairs, got {found[0]} and {found[1]}",
        )
    if key == "strides":
        found = [[_stride(f"{where}.{key}", each) for each in side] for side in found]
    return [list(levels) for levels in found]
