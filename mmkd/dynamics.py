"""What goes on inside a term, measured on a batch that stays the same. It knows no trainer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmkd.analysis import (
    agreement,
    between_class_cosine,
    condition_number,
    cosine_by_place,
    effective_rank,
    explained_variance,
    fixed_point_residual,
    input_output_correlation,
    linear_cka,
    singular_values,
)
from mmkd.analysis.samples import standardised
from mmkd.distillation import Distillation
from mmkd.distiller import FeatureDistiller
from mmkd.features import evaluation_mode, pair_as_maps, pair_as_samples, pooled
from mmkd.numerics import as_weights
from mmkd.projectors import LinearProjector
from mmkd.targets import Targets

__all__ = ["arrived_dynamics", "term_dynamics"]

# Rows are picked evenly from a batch's locations: enough for some hundred channels.
_MOST_SAMPLES = 2048


def arrived_dynamics(distillation: Distillation, term: str) -> dict[str, float]:
    """Share and cosine of a term's gradient in the last iteration in which it was on."""
    arrived = distillation.arrived.get(term)
    if arrived is None:
        return {}
    return dict(gradient_share=float(arrived.share), gradient_cosine=float(arrived.cosine))


@torch.no_grad()
def term_dynamics(
    distiller: nn.Module, student: Sequence[Tensor], teacher: Sequence[Tensor], targets: Targets
) -> dict[str, float]:
    """Measures of :mod:`mmkd.analysis` that apply to a term; what is undefined is left out.

    Of features ``cka`` and ``explained_variance``; of a linear projector ``effective_rank``,
    ``condition_number``, ``rest`` (:func:`mmkd.analysis.fixed_point_residual` of standardised
    features) and ``passes`` (:func:`mmkd.analysis.input_output_correlation`); where boxes are
    known ``cosine_inside``, ``cosine_outside``, ``cosine_small`` and so on of the projected
    feature; where classes are known, ``between_classes`` and ``teacher_between_classes``; of
    logits ``agreement``. Terms of several levels, and distillers of their own, have none.

    Args:
        distiller: Of the term; nothing of it changes.
        student, teacher: Its features for the batch, one a level.
        targets: What the batch shows.
    """
    if not isinstance(distiller, FeatureDistiller) or distiller.takes.several_levels:
        return {}
    ours, theirs = student[0].detach().float(), teacher[0].detach().float()
    if not (ours.isfinite().all() and theirs.isfinite().all()):
        return {}
    if distiller.takes.form == "logits" and ours.ndim == 2:
        return dict(agreement=agreement(ours, theirs))
    has_maps = ours.ndim == theirs.ndim == 4
    with evaluation_mode(distiller):
        found = _of_samples(distiller, ours, theirs, "dense" if has_maps else "global", targets)
        if has_maps:
            found |= _of_places(distiller, ours, theirs, targets)
    found |= _of_classes(ours, theirs, targets)
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _of_samples(
    distiller: FeatureDistiller, ours: Tensor, theirs: Tensor, view: str, targets: Targets
) -> dict[str, float]:
    ours, theirs = (_few(side) for side in pair_as_samples(ours, theirs, view, targets.size))
    if len(ours) < 2:
        return {}
    found = dict(cka=linear_cka(ours, theirs), explained_variance=explained_variance(ours, theirs))
    projector = distiller.projector
    if isinstance(projector, LinearProjector):
        weight = projector.linear.weight
        values = singular_values(weight)
        found |= dict(
            effective_rank=effective_rank(values),
            condition_number=condition_number(values),
            rest=fixed_point_residual(standardised(ours), standardised(theirs), weight),
            passes=input_output_correlation(ours, projector(as_weights(projector, ours))),
        )
    return found


def _few(samples: Tensor) -> Tensor:
    return samples[:: max(1, math.ceil(len(samples) / _MOST_SAMPLES))]


def _of_places(
    distiller: FeatureDistiller, ours: Tensor, theirs: Tensor, targets: Targets
) -> dict[str, float]:
    try:
        boxes = [each.corners for each in targets.boxes]
    except ValueError:  # A training without.
        return {}
    projected = distiller.projector(as_weights(distiller.projector, ours)).float()
    projected, theirs = pair_as_maps(projected, theirs, targets.size)
    if projected.shape != theirs.shape:  # Compared in either side's own width.
        return {}
    places = cosine_by_place(projected, theirs, boxes, targets.size)
    return {f"cosine_{name}": value for name, value in places._asdict().items()}


def _of_classes(ours: Tensor, theirs: Tensor, targets: Targets) -> dict[str, float]:
    try:
        labels = targets.one_class_each("dynamics")
    except ValueError:  # A training without, or with mixed ones.
        return {}
    return dict(
        between_classes=between_class_cosine(pooled(ours), labels.to(ours.device)),
        teacher_between_classes=between_class_cosine(pooled(theirs), labels.to(ours.device)),
    )
