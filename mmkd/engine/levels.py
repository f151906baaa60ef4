"""Outputs of a model by level and by stride, and by names that stand for several of its modules."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from torch import nn

from mmkd.errors import InputError
from mmkd.features import EVERY_RUN, Stride, levels_by_stride, of_stride, outputs_when_run
from mmkd.terms import Tap, Term

__all__ = ["HEAD_BRANCHES", "HEAD_OUTPUTS", "Levels", "Named", "expanded", "located"]

# What adapters know by name of the heads of their own detectors.
HEAD_OUTPUTS = (
    "head.classes",
    "head.objectness",
    "head.boxes",
    "rpn.objectness",
    "roi.classes",
)
# Convolutions one after another, each run once a level, in the heads that MMDetection derives from
# its AnchorHead and AnchorFreeHead.
HEAD_BRANCHES = ("bbox_head.cls_convs.", "bbox_head.reg_convs.")
# The modules that a name such as 'backbone' stands for, from fine to coarse; None: itself.
Named = Callable[[nn.Module, str], Sequence[str] | None]
# Maps that are finer than this cost most and are left out where every stride is asked for.
_FINEST = 8


class Levels:
    """What a model leaves where.

    Args:
        model: Of the student or a teacher.
        run: A forward pass of an image of ``size``.
        size: Height and width in pixels.
        named: See above.
    """

    def __init__(
        self,
        model: nn.Module,
        run: Callable[[], Any],
        size: tuple[int, int],
        named: Named = lambda model, path: None,
    ) -> None:
        self._model, self._run, self._size, self._named = model, run, size, named
        self._found: dict[str, dict[int, Tap]] = {}

    def cells(self, stride: int) -> int:
        """Of a map."""
        return math.prod(math.ceil(side / stride) for side in self._size)

    def by_stride(self, path: str) -> dict[int, Tap]:
        """Every map that a path leads to, by its stride, from fine to coarse."""
        if path not in self._found:
            self._found[path] = self._look(path)
        return self._found[path]

    def _look(self, path: str) -> dict[int, Tap]:
        paths = self._named(self._model, path) or [path]
        outputs = outputs_when_run(self._model, paths, self._run)
        found = {
            stride: Tap(each, level)
            for each in paths
            for stride, level in levels_by_stride(outputs[each], self._size).items()
        }
        return dict(sorted(found.items()))

    def of_scores(self, term: Term) -> Term:
        """A term of this teacher, whose scores come from modules and no longer by names.

        Raises:
            ValueError: It has no class logits.
        """
        if not term.scores:
            return term
        (classes,), (objectness,) = term.scores
        try:
            found = [self._named(self._model, classes) or [classes]]
        except ValueError as error:
            raise ValueError(
                f"the loss weighs cells by the teacher's class scores: {error}"
            ) from error
        # Which few heads have.
        with suppress(ValueError):
            found.append(self._named(self._model, objectness) or [])
        return term.replace(scores=tuple(tuple(each) for each in found if each))

    def find(self, tap: Tap) -> Tap:
        """The module and output that a tap means.

        Raises:
            ValueError: There is no such level or stride.
        """
        if isinstance(tap.level, Stride):
            return of_stride(tap.level, self.by_stride(tap.path), tap.path, Tap(tap.path))
        paths = self._named(self._model, tap.path)
        if paths is None:
            return tap
        level = tap.level
        if len(paths) == 1 and paths[0].endswith(EVERY_RUN):
            return Tap(paths[0], level)
        if not isinstance(level, int) or not -len(paths) <= level < len(paths):
            raise ValueError(
                f"level {level!r} was asked of a {tap.path} with {len(paths)} outputs: "
                f"{', '.join(paths)}"
            )
        return Tap(paths[level])


def expanded(term: Term, levels: Levels) -> list[Term]:
    """A term of every stride as a term for each of the student's, from 8 pixels up and of as many
    cells as its loss needs, where it has such; itself, if it is none.

    Of the teacher, each takes the stride that is nearest: what is finer is pooled to the other's
    grid. A student without maps is compared by its last output.
    """
    [tap, *others] = term.student
    if not isinstance(tap.level, Stride) or tap.level.pixels is not None:
        return [term]
    if others:
        raise InputError.at(term.key, "stride 'all' makes a term each: give strides a list")
    found = levels.by_stride(tap.path)
    chosen = {
        stride: each
        for stride, each in found.items()
        if stride >= _FINEST and levels.cells(stride) >= term.cells
    } or found
    if not chosen:
        last = tuple(Tap(each.path) for each in (tap, *term.teacher))
        return [term.replace(student=last[:1], teacher=last[1:])]
    [theirs] = term.teacher
    is_every = isinstance(theirs.level, Stride) and theirs.level.pixels is None
    return [
        term.replace(
            name=term.name if len(chosen) == 1 else f"{term.name}_s{stride}",
            student=(each,),
            teacher=(Tap(theirs.path, Stride(stride, is_nearest=True)) if is_every else theirs,),
        )
        for stride, each in chosen.items()
    ]


def located(tap: Tap, outputs: Mapping[str, Any], size: tuple[int, int]) -> Tap:
    """A tap with a level in the place of a stride, once its module has run.

    Args:
        tap: Of one of the modules.
        outputs: What they returned for an image.
        size: Of the image, height and width in pixels.

    Raises:
        ValueError: There is no such stride.
    """
    if not isinstance(tap.level, Stride):
        return tap
    levels = levels_by_stride(outputs[tap.path], size)
    return Tap(tap.path, of_stride(tap.level, levels, tap.path, -1))
