"""The configuration of distillation terms, shared by every trainer's adapter."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

__all__ = ["Schedule", "Term", "check_keys", "naming", "parse_terms"]


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Prefixes errors of the user's making with the setting they come from.

    Args:
        where: Owner and key: ``'DistillHook terms.backbone'``. An error that names a setting of
            the same owner already is left as it is.
    """
    try:
        yield
    except (ValueError, TypeError, RuntimeError, FileNotFoundError) as error:
        if str(error).startswith(where.partition(" ")[0]):
            raise
        kind = next(
            k
            for k in (FileNotFoundError, TypeError, ValueError, RuntimeError)
            if isinstance(error, k)
        )
        raise kind(f"{where}: {error}") from error


def check_keys(where: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raises ValueError for a key that is not known, with the closest one that is."""
    known = list(known)
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ValueError(f"{where} has no key {key!r}{hint}; it takes {', '.join(known)}")


@dataclass(frozen=True)
class Schedule:
    """The factor of a term's weight over training.

    Args:
        begin: Where the term begins; 0 before.
        end: Where it ends (distil, then fine-tune alone); None for never. From there on the
            teacher does not run.
        ramp: Length of the linear rise from 0 at ``begin`` to 1.
        by_epoch: Whether the three count epochs (fractions allowed) or iterations.

    Raises:
        ValueError: begin or ramp negative, end not after begin.
    """

    begin: float = 0
    end: float | None = None
    ramp: float = 0
    by_epoch: bool = True

    def __post_init__(self) -> None:
        if self.begin < 0 or self.ramp < 0:
            raise ValueError(f"begin and ramp must be 0 or more, got {self}")
        if self.end is not None and self.end <= self.begin:
            raise ValueError(f"end must come after begin, got {self}")

    def factor(self, iteration: int, iterations_per_epoch: int) -> float:
        """The factor, 0 to 1, of the iteration that is about to run (counted from 0)."""
        now = iteration / iterations_per_epoch if self.by_epoch else iteration
        if now < self.begin or (self.end is not None and now >= self.end):
            return 0.0
        return min(1.0, (now - self.begin) / self.ramp) if self.ramp else 1.0


@dataclass(frozen=True)
class Term:
    """What one term compares, and when; ``parts`` are FeatureDistiller's own arguments."""

    name: str
    source: str
    student: str = "backbone"
    teacher: str = "backbone"
    student_level: int | str = -1
    teacher_level: int | str = -1
    student_classifier: str | None = None
    teacher_classifier: str | None = None
    schedule: Schedule = field(default_factory=Schedule)
    parts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The config key that errors name."""
        return f"terms.{self.name}"

    def replace(self, **changes: Any) -> Term:
        """This term with other values of some fields."""
        return dataclasses.replace(self, **changes)


_PART_KEYS = (
    "projector",
    "normalizer",
    "loss",
    "view",
    "weight",
    "student_channels",
    "teacher_channels",
    "student_extra_tokens",
    "teacher_extra_tokens",
)
_TERM_KEYS = (
    "source",
    "student",
    "teacher",
    "level",
    "student_level",
    "teacher_level",
    "student_classifier",
    "teacher_classifier",
    "schedule",
    *_PART_KEYS,
)


def parse_terms(
    terms: Mapping[str, Mapping[str, Any]] | None, sources: Sequence[str]
) -> list[Term]:
    """Reads the ``terms`` setting.

    Args:
        terms: Name to settings. None: one default term per teacher. A ``level`` that is a list
            makes one term, with a projector of its own, per entry.
        sources: The teachers' names.

    Raises:
        ValueError: No terms, an unknown key, two terms of one name, or a teacher that is not
            named.
        TypeError: Something other than a dict.
    """
    if terms is None:
        single = len(sources) == 1
        terms = {("backbone" if single else name): dict(source=name) for name in sources}
    if not isinstance(terms, Mapping):
        raise TypeError(f"terms must be a dict of name=dict(...), got {terms!r}")
    if not terms:
        raise ValueError("terms is empty: leave it out for the default term")
    parsed = [term for name, settings in terms.items() for term in _parse(name, settings, sources)]
    names = [term.name for term in parsed]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two terms are called {name!r}: rename one, or drop a repeated level")
    return parsed


def _parse(name: str, settings: Mapping[str, Any], sources: Sequence[str]) -> list[Term]:
    where = f"terms.{name}"
    if not isinstance(settings, Mapping):
        raise TypeError(f"{where} must be a dict, got {settings!r}")
    check_keys(where, settings, _TERM_KEYS)
    source = settings.get("source", sources[0] if len(sources) == 1 else None)
    if source not in sources:
        raise ValueError(
            f"{where}.source must name a teacher, one of {list(sources)}, got {source!r}"
        )
    begin_and_end = dict(settings.get("schedule") or {})
    check_keys(f"{where}.schedule", begin_and_end, [f.name for f in fields(Schedule)])
    try:
        schedule = Schedule(**begin_and_end)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}.schedule: {error}") from error
    level = settings.get("level", -1)
    levels = list(level) if isinstance(level, list | tuple) else [level]
    if not levels:
        raise ValueError(f"{where}.level is empty")
    return [
        Term(
            name=name if len(levels) == 1 else f"{name}_{each}",
            source=source,
            student=settings.get("student", "backbone"),
            teacher=settings.get("teacher", "backbone"),
            student_level=settings.get("student_level", each),
            teacher_level=settings.get("teacher_level", each),
            student_classifier=settings.get("student_classifier"),
            teacher_classifier=settings.get("teacher_classifier"),
            schedule=schedule,
            parts={key: settings[key] for key in _PART_KEYS if key in settings},
        )
        for each in levels
    ]
