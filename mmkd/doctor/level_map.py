"""Which levels of student and teacher are alike, and which of them know what the images show."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from mmkd.analysis import linear_cka
from mmkd.analysis.similarity import LEAST_SAMPLES
from mmkd.distillation import Distillation
from mmkd.dynamics import ProbeImages, drawn_samples
from mmkd.errors import InputError
from mmkd.linear_probe import ProbedPair
from mmkd.terms import Tap

__all__ = ["LEVEL_TERMS", "LevelMap", "first_that_fits", "level_map"]

_PLACES = ("backbone", "neck")
# All that could be compared, in the order in which to try: a model may have no neck.
LEVEL_TERMS: tuple[Mapping[str, Mapping[str, Any]], ...] = tuple(
    {
        f"{ours}-{theirs}": dict(student=ours, teacher=theirs, stride="all")
        for ours, theirs in product(_PLACES[:ours_count], _PLACES[:theirs_count])
    }
    for ours_count, theirs_count in ((2, 2), (1, 2), (2, 1), (1, 1))
)
# Of a batch.
_MOST_SAMPLES = 512


@dataclass(frozen=True)
class LevelMap:
    """What is found of every pair.

    Args:
        student, teacher: The levels, from fine to coarse in each module.
        cka: Linear CKA, a row a student's level; None where one does not vary.
        student_probe, teacher_probe: The share of what locations show (objects' classes and
            background) that a linear map of the level explains on images that it was not fitted to
            (:class:`mmkd.linear_probe.LinearProbe`); None where the images show too few objects.
        own: Which teacher's level has each student's in the same module, or nearest to it.
    """

    student: tuple[str, ...]
    teacher: tuple[str, ...]
    cka: tuple[tuple[float | None, ...], ...]
    student_probe: tuple[float | None, ...]
    teacher_probe: tuple[float | None, ...]
    own: tuple[int, ...]

    @property
    def leads(self) -> tuple[float | None, ...]:
        """By student's level, how much more the teacher's own level knows."""
        return tuple(
            None
            if (ours := self.student_probe[index]) is None
            or (theirs := self.teacher_probe[self.own[index]]) is None
            else theirs - ours
            for index in range(len(self.student))
        )

    @property
    def proposals(self) -> list[dict[str, Any]]:
        """Where a teacher's level knows more than the student's that would learn from it, the
        largest ``lead`` first; ``student`` and ``teacher`` name the levels."""
        known = sorted(
            ((lead, index) for index, lead in enumerate(self.leads) if lead is not None),
            reverse=True,
        )
        return [
            dict(student=self.student[index], teacher=self.teacher[self.own[index]], lead=lead)
            for lead, index in known
            if lead > 0
        ]


def first_that_fits(look: Callable[[dict[str, Any]], LevelMap]) -> LevelMap:
    """What is found by the first of :data:`LEVEL_TERMS` that student and teacher have.

    Args:
        look: By such terms.

    Raises:
        InputError: None of them; that of the last.
    """
    *others, last = LEVEL_TERMS
    for terms in others:
        # Perhaps there is no neck.
        with suppress(InputError):
            return look(dict(terms))
    return look(dict(last))


def level_map(distillation: Distillation, probes: Sequence[ProbeImages]) -> LevelMap:
    """Looks at the features of a distillation by :data:`LEVEL_TERMS`.

    Args:
        distillation: Of which nothing changes.
        probes: Four batches or more: a probe is fitted to some and scored on others.
    """
    rows: dict[tuple[Tap, Tap], list[tuple[Tensor, Tensor]]] = {}
    sides: tuple[dict[Tap, ProbedPair], dict[Tap, ProbedPair]] = ({}, {})
    for probe in probes:
        features = distillation.features(probe.run, probe.inputs, probe.context)
        ours: dict[Tap, Tensor] = {}
        theirs: dict[Tap, Tensor] = {}
        for term in distillation.terms:
            [ours[term.student[0]]], [theirs[term.teacher[0]]] = features[term.name]
        # Of each batch a few rows: all maps at once may be more than there is memory.
        for found, levels in zip((ours, theirs), sides, strict=True):
            for tap, feature in found.items():
                levels.setdefault(tap, ProbedPair()).add(feature, feature, probe.targets)
        for mine, other in product(ours, theirs):
            pair = _rows(ours[mine], theirs[other], probe.targets.size)
            rows.setdefault((mine, other), []).append(pair)
    ours_probed, theirs_probed = sides
    own_level = {}
    for term in distillation.terms:
        [mine], [other] = term.student, term.teacher
        # That of the same place, where the teacher has it.
        is_same = term.name.partition("_")[0] in ("backbone-backbone", "neck-neck")
        if is_same or mine not in own_level:
            own_level[mine] = list(theirs_probed).index(other)
    return LevelMap(
        tuple(map(str, ours_probed)),
        tuple(map(str, theirs_probed)),
        tuple(tuple(_cka(rows[mine, other]) for other in theirs_probed) for mine in ours_probed),
        tuple(map(_score, ours_probed.values())),
        tuple(map(_score, theirs_probed.values())),
        tuple(own_level[tap] for tap in ours_probed),
    )


def _rows(ours: Tensor, theirs: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    view = "dense" if ours.ndim == theirs.ndim == 4 else "global"
    ours, theirs = drawn_samples(ours.float(), theirs.float(), view, size, _MOST_SAMPLES)
    return ours.cpu(), theirs.cpu()


def _cka(rows: Sequence[tuple[Tensor, Tensor]]) -> float | None:
    ours, theirs = (torch.cat(side) for side in zip(*rows, strict=True))
    found = linear_cka(ours, theirs) if len(ours) >= LEAST_SAMPLES else math.nan
    return found if math.isfinite(found) else None


def _score(probe: ProbedPair) -> float | None:
    scores = probe.scores()
    return None if scores is None else float(scores[0].mean())
