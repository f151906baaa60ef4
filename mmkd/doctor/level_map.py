"""Which levels of student and teacher are alike, and which of them know what the images show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from mmkd.analysis import linear_cka
from mmkd.distillation import Distillation
from mmkd.dynamics import ProbeImages
from mmkd.features import pair_as_samples
from mmkd.linear_probe import ProbedPair
from mmkd.terms import Tap

__all__ = ["LEVEL_TERMS", "LevelMap", "level_map"]

_PLACES = ("backbone", "neck")
# All that could be compared, in the order in which to try: a model may have no neck.
LEVEL_TERMS: tuple[Mapping[str, Mapping[str, Any]], ...] = tuple(
    {
        f"{ours}-{theirs}": dict(student=ours, teacher=theirs, stride="all")
        for ours, theirs in product(_PLACES[:ours_count], _PLACES[:theirs_count])
    }
    for ours_count, theirs_count in ((2, 2), (1, 2), (2, 1), (1, 1))
)
# Rows are picked evenly.
_MOST_SAMPLES = 4096


@dataclass(frozen=True)
class LevelMap:
    """What is found of every pair.

    Args:
        student, teacher: The levels, from fine to coarse in each module.
        cka: Linear CKA, a row a student's level.
        student_probe, teacher_probe: The share of what locations show (objects' classes and
            background) that a linear map of the level explains on images that it was not fitted to
            (:class:`mmkd.linear_probe.LinearProbe`); None where the images show too few objects.
        own: Which teacher's level has each student's in the same module, or nearest to it.
    """

    student: tuple[str, ...]
    teacher: tuple[str, ...]
    cka: tuple[tuple[float, ...], ...]
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


def level_map(distillation: Distillation, probes: Sequence[ProbeImages]) -> LevelMap:
    """Looks at the features of a distillation by :data:`LEVEL_TERMS`.

    Args:
        distillation: Of which nothing changes.
        probes: Four batches or more: a probe is fitted to some and scored on others.
    """
    sides: tuple[dict[Tap, list[Tensor]], dict[Tap, list[Tensor]]] = ({}, {})
    for probe in probes:
        features = distillation.features(probe.run, probe.inputs, probe.context)
        seen: tuple[set[Tap], set[Tap]] = (set(), set())
        for term in distillation.terms:
            for side, taps, found, own in zip(
                sides, (term.student, term.teacher), features[term.name], seen, strict=True
            ):
                [tap], [feature] = taps, found
                if tap not in own:
                    side.setdefault(tap, []).append(feature.detach().float().cpu())
                    own.add(tap)
    ours, theirs = sides
    own_level = {}
    for term in distillation.terms:
        [mine], [other] = term.student, term.teacher
        # That of the same place, where the teacher has it.
        is_same = term.name.partition("_")[0] in ("backbone-backbone", "neck-neck")
        if is_same or mine not in own_level:
            own_level[mine] = list(theirs).index(other)
    return LevelMap(
        tuple(map(str, ours)),
        tuple(map(str, theirs)),
        tuple(tuple(_cka(a, b, probes) for b in theirs.values()) for a in ours.values()),
        tuple(_probed(each, probes) for each in ours.values()),
        tuple(_probed(each, probes) for each in theirs.values()),
        tuple(own_level[tap] for tap in ours),
    )


def _cka(ours: Sequence[Tensor], theirs: Sequence[Tensor], probes: Sequence[ProbeImages]) -> float:
    rows = []
    for mine, other, probe in zip(ours, theirs, probes, strict=True):
        view = "dense" if mine.ndim == other.ndim == 4 else "global"
        rows.append(pair_as_samples(mine, other, view, probe.targets.size))
    sides = [torch.cat(side) for side in zip(*rows, strict=True)]
    step = max(1, len(sides[0]) // _MOST_SAMPLES)
    return linear_cka(sides[0][::step], sides[1][::step])


def _probed(features: Sequence[Tensor], probes: Sequence[ProbeImages]) -> float | None:
    pair = ProbedPair()
    for feature, probe in zip(features, probes, strict=True):
        if not pair.add(feature, feature, probe.targets):
            return None
    scores = pair.scores()
    return None if scores is None else float(scores[0].mean())
