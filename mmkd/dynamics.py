"""What goes on inside a term, measured on a batch that stays the same. It knows no trainer."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmkd.analysis import (
    agreement,
    between_class_cosine,
    classifier_distance,
    condition_number,
    correlation,
    cosine_by_place,
    effective_rank,
    explained_variance,
    fixed_point_residual,
    input_output_correlation,
    linear_cka,
    root_mean_square,
    singular_values,
    translational_equivariance,
)
from mmkd.analysis.samples import as_float64, centred, drawn_rows, standardised
from mmkd.analysis.similarity import LEAST_SAMPLES
from mmkd.box_features import in_boxes
from mmkd.distillation import Distillation
from mmkd.distiller import FeatureDistiller
from mmkd.dynamics_file import MATRIX, Measures
from mmkd.errors import InputError, naming
from mmkd.features import (
    as_samples,
    check_layout,
    evaluation_mode,
    find_module,
    outputs_when_run,
    pair_as_maps,
    pair_as_samples,
    pooled,
    without_extra_tokens,
)
from mmkd.normalizers import BatchNormalizer, IdentityNormalizer
from mmkd.numerics import as_weights
from mmkd.projectors import LinearProjector, MLPProjector, Projector, ProjectorEnsemble
from mmkd.targets import Targets
from mmkd.terms import Term
from mmkd.token_grids import extra_tokens, token_grid

__all__ = [
    "SINGULAR_QUANTILES",
    "DynamicsSettings",
    "ProbeImages",
    "arrived_dynamics",
    "check_blocks",
    "drawn_samples",
    "dynamics_of",
    "projector_dynamics",
    "recorded",
    "term_dynamics",
]

# Of a projector's singular values, by the measures that they become.
SINGULAR_QUANTILES = dict(
    singular_min=0.0, singular_25=0.25, singular_50=0.5, singular_75=0.75, singular_max=1.0
)
# Of a batch's locations: enough for some hundred channels.
_MOST_SAMPLES = 2048
# Views in which a location is a sample.
_BY_LOCATION = ("dense", "map")
# Of a correlation matrix, picked evenly from either side's: more could not be told apart in a
# picture.
_MOST_CHANNELS = 128
# By default so many images are trained on for each that is looked at.
_APART = 100


@dataclass(frozen=True)
class DynamicsSettings:
    """What is recorded, and when.

    Args:
        images: Number of images that are looked at, of either split.
        interval: Epochs (or iterations) from one record to the next; None: as few as leave
            recording less than 2% of the time (``benchmarks/dynamics_cost.py``), by the images that
            are trained on between.
        blocks: Paths of the student's modules, such as the layers of a vision transformer, up to
            which its equivariance to translation is recorded.
    """

    images: int = 16
    interval: int | None = None
    blocks: tuple[str, ...] = ()

    @classmethod
    def parse(cls, prefix: str, settings: Any) -> DynamicsSettings:
        """Reads a dict, or True for what is usual.

        Args:
            prefix: Of the keys that errors name: ``'DistillCallback dynamics.'``.
            settings: As a user wrote it.

        Raises:
            InputError: Something else, an unknown key, a number below 1, or blocks that are no list
                of names.
        """
        if settings is True:
            return cls()
        known = [each.name for each in fields(cls)]
        if not isinstance(settings, Mapping) or set(settings) - set(known):
            raise InputError.at(
                prefix.rstrip(" ."), f"expected True, or a dict of {known}, got {settings!r}"
            )
        own = dict(settings)
        blocks = own.pop("blocks", ())
        for name, value in own.items():
            is_unset = name == "interval" and value is None
            if not is_unset and not (type(value) is int and value >= 1):
                raise InputError.at(
                    f"{prefix}{name}", f"expected a number from 1 on, got {value!r}"
                )
        if not isinstance(blocks, list | tuple) or not all(isinstance(b, str) for b in blocks):
            raise InputError.at(
                f"{prefix}blocks", f"expected a list of the student's modules, got {blocks!r}"
            )
        return cls(**own, blocks=tuple(blocks))

    def every(self, images: int, known: int | None = None) -> int:
        """Steps from one record to the next; one is made at the end besides.

        Args:
            images: That are trained on in a step: an epoch or an iteration.
            known: Of which there are no more; None: of which there are enough.
        """
        looked_at = min(self.images, known or self.images)
        return self.interval or math.ceil(_APART * looked_at / images)


class ProbeImages(NamedTuple):
    """Images that are looked at again and again.

    Args:
        inputs: ``[N, 3, H, W]``, as the student takes them.
        targets: What they show.
        run: Runs the student on such images.
        context: See :meth:`mmkd.distillation.Distillation.measure`.
    """

    inputs: Tensor
    targets: Targets
    run: Callable[[Tensor], Any]
    context: Any = None


def dynamics_of(
    distillation: Distillation, probe: ProbeImages, blocks: Sequence[str] = ()
) -> dict[str, Measures]:
    """:func:`term_dynamics` by term, with the student in evaluation mode; and of each block, by its
    path, the ``equivariance`` of all that lies between it and the images, which are rolled by a
    cell of its grid (:func:`mmkd.analysis.translational_equivariance`, relative).

    Args:
        distillation: Of which nothing changes.
        probe: The images.
        blocks: See :class:`DynamicsSettings`.

    Raises:
        ValueError: A block that the student has not, or that returns no tokens or map whose cells
            are so many pixels.
        RuntimeError: One that does not run.
    """
    features = distillation.features(probe.run, probe.inputs, probe.context)
    found = {
        term.name: term_dynamics(distillation.distiller(term), *features[term.name], probe.targets)
        for term in distillation.terms
    }
    if blocks:
        found |= _blocks_dynamics(distillation.student, probe, blocks)
    return found


def check_blocks(
    owner: str, distillation: Distillation, probes: Iterable[ProbeImages], blocks: Sequence[str]
) -> None:
    """Looks at blocks once, so that what does not fit shows before a training.

    Args:
        owner: Whose setting errors name.
        distillation, blocks: See :func:`dynamics_of`.
        probes: All images that will be looked at.

    Raises:
        InputError: A block does not fit.
        TermError: One that does not run.
    """
    for probe in probes if blocks else ():
        # Too little memory is for the record to tell.
        with suppress(torch.OutOfMemoryError), naming(f"{owner} blocks"):
            _blocks_dynamics(distillation.student, probe, blocks)


def _blocks_dynamics(
    student: nn.Module, probe: ProbeImages, blocks: Sequence[str]
) -> dict[str, Measures]:
    size = (probe.inputs.shape[2], probe.inputs.shape[3])
    outputs = outputs_when_run(student, blocks, partial(probe.run, probe.inputs))
    grids = {path: _on_grid(path, output, size) for path, output in outputs.items()}
    by_cell: dict[tuple[int, int], list[str]] = {}
    for path, grid in grids.items():
        cell = (size[0] // grid.shape[1], size[1] // grid.shape[2])
        by_cell.setdefault(cell, []).append(path)
    found: dict[str, Measures] = {}
    for cell, paths in by_cell.items():
        moved = probe.inputs.roll(cell, dims=(2, 3))
        for path, output in outputs_when_run(student, paths, partial(probe.run, moved)).items():
            after = _on_grid(path, output, size)
            value = translational_equivariance(grids[path], after, (1, 1), relative=True)
            found[path] = dict(_finite(dict(equivariance=value)))
    return found


def _on_grid(path: str, output: Any, size: tuple[int, int]) -> Tensor:
    """``[N, rows, columns, C]``, of tokens or of a map."""
    if not isinstance(output, Tensor) or output.ndim not in (3, 4):
        raise ValueError(
            f"{path!r} returns no tokens [N, L, C] and no map [N, C, H, W]: name layers of a "
            "transformer"
        )
    check_layout(output[:1], size)
    if output.ndim == 4:
        grid = output.movedim(1, -1)
    else:
        extra = extra_tokens(output.shape[1], size) or 0
        grid = output[:, extra:].unflatten(1, token_grid(output.shape[1] - extra, size))
    if any(side % cells for side, cells in zip(size, grid.shape[1:3], strict=True)):
        raise ValueError(
            f"{path!r} has {grid.shape[1]} x {grid.shape[2]} cells, of which images of {size[0]} x "
            f"{size[1]} pixels are no multiple: they cannot be moved by a cell"
        )
    return grid


def arrived_dynamics(distillation: Distillation) -> dict[str, dict[str, float]]:
    """By term, share and cosine of its gradient in the last iteration in which it was on."""
    return {
        name: _finite(dict(gradient_share=float(each.share), gradient_cosine=float(each.cosine)))
        for name, each in distillation.arrived.items()
    }


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    """What is undefined is left out."""
    return {name: value for name, value in values.items() if math.isfinite(value)}


@torch.no_grad()
def projector_dynamics(distiller: nn.Module) -> dict[str, float]:
    """Of a term's linear projector, whatever the images: ``effective_rank``, ``condition_number``
    and the quantiles of its singular values (:data:`SINGULAR_QUANTILES`); nothing of another.

    Args:
        distiller: Of the term.
    """
    projector = getattr(distiller, "projector", None)
    if not isinstance(projector, LinearProjector):
        return {}
    weight = projector.linear.weight
    if not weight.isfinite().all():
        return {}
    values = singular_values(weight)
    found = dict(
        effective_rank=effective_rank(values),
        condition_number=condition_number(values),
        **{name: float(values.quantile(place)) for name, place in SINGULAR_QUANTILES.items()},
    )
    return _finite(found)


def recorded(
    distillation: Distillation, probes: Mapping[str, ProbeImages], blocks: Sequence[str] = ()
) -> dict[str, dict[str, Measures]]:
    """What a trainer records, by images, term and measure: :func:`dynamics_of`; and with those of
    the training :func:`arrived_dynamics`, :func:`projector_dynamics` and, between linear
    classifiers of one shape, ``classifier_distance`` (:func:`mmkd.analysis.classifier_distance`),
    which no images decide.

    Args:
        distillation: Of which nothing changes.
        probes: By split, ``'train'`` among them.
        blocks: See :class:`DynamicsSettings`.

    Raises:
        ValueError, RuntimeError: See :func:`dynamics_of`.
    """
    found: dict[str, dict[str, Measures]] = {"train": {}}
    for name, probe in probes.items():
        try:
            found[name] = dynamics_of(distillation, probe, blocks)
        except torch.OutOfMemoryError:
            logging.getLogger("mmkd").warning(
                "not enough memory to record of %d images: give fewer", len(probe.inputs)
            )
    arrived = arrived_dynamics(distillation)
    for term in distillation.terms:
        found["train"][term.name] = {
            **found["train"].get(term.name, {}),
            **projector_dynamics(distillation.distiller(term)),
            **_classifier_dynamics(distillation, term),
            **arrived.get(term.name, {}),
        }
    return found


def _classifier_dynamics(distillation: Distillation, term: Term) -> dict[str, float]:
    if distillation.distiller(term).takes.form != "logits":
        return {}
    ours = find_module(distillation.student, term.student[0].path)
    theirs = distillation.teachers[term.source].module(term.teacher[0].path)
    if not (isinstance(ours, nn.Linear) and isinstance(theirs, nn.Linear)):
        return {}
    if ours.weight.shape != theirs.weight.shape:
        return {}
    return _finite(dict(classifier_distance=classifier_distance(ours.weight, theirs.weight)))


@torch.no_grad()
def term_dynamics(
    distiller: nn.Module, student: Sequence[Tensor], teacher: Sequence[Tensor], targets: Targets
) -> Measures:
    """Measures of :mod:`mmkd.analysis` that apply to a term; what is undefined is left out.

    Of features ``cka``, ``explained_variance``, ``self_correlation`` (of the student's channels)
    and ``cross_correlation`` (with the teacher's, :func:`mmkd.analysis.input_output_correlation`),
    either also as the matrix itself, ``self_correlation_matrix`` and ``cross_correlation_matrix``,
    of up to 128 channels a side; of a projector ``passes``
    (:func:`mmkd.analysis.input_output_correlation`), and of a linear one beside BatchNorm or no
    normaliser ``rest`` (:func:`mmkd.analysis.fixed_point_residual`), both of what the term's view
    gives it; where boxes are known ``cosine_inside``, ``cosine_outside``, ``cosine_small`` and so
    on of what the loss compares; where classes of images are known, or of what boxes mark,
    ``between_classes`` and ``teacher_between_classes``; of logits ``agreement``. Terms of several
    levels, and distillers of their own, have none. Of maps each location is a sample, of tokens
    where the term's view is dense. Correlations and explained variance are left out where the
    student has less than two samples a channel.

    Args:
        distiller: Of the term; nothing of it changes.
        student, teacher: Its features for the batch, one a level.
        targets: What the batch shows.
    """
    if not isinstance(distiller, FeatureDistiller) or distiller.takes.several_levels:
        return {}
    ours, theirs = (
        without_extra_tokens(side[0].detach().float(), extra)
        for side, extra in (
            (student, distiller.student_extra_tokens),
            (teacher, distiller.teacher_extra_tokens),
        )
    )
    if not (ours.isfinite().all() and theirs.isfinite().all()):
        return {}
    if distiller.takes.form == "logits" and ours.ndim == 2:
        return dict(agreement=agreement(ours, theirs))
    has_maps = ours.ndim == theirs.ndim == 4
    by_location = distiller.view in _BY_LOCATION
    view = "dense" if has_maps or by_location else "global"
    own_view = "dense" if by_location else distiller.view
    samples = drawn_samples(ours, theirs, view, targets.size)
    with evaluation_mode(distiller):
        found = _of_features(*samples)
        if own_view == view:
            found |= _of_projector(distiller, *samples)
        elif own_view == "global":
            pooled_ones = drawn_samples(ours, theirs, own_view, targets.size)
            found |= _of_projector(distiller, *pooled_ones)
        if has_maps and by_location:
            found |= _of_places(distiller, ours, theirs, targets)
    found |= _of_objects(ours, theirs, targets) if has_maps else {}
    found |= _of_classes(ours, theirs, targets)
    matrices = {name: value for name, value in found.items() if isinstance(value, Tensor)}
    return _finite({k: v for k, v in found.items() if not isinstance(v, Tensor)}) | matrices


def drawn_samples(
    ours: Tensor, theirs: Tensor, view: str, size: tuple[int, int], most: int = _MOST_SAMPLES
) -> tuple[Tensor, Tensor]:
    """Samples of either side, the same ones; from all over a batch where it has more than ``most``.

    Args:
        ours, theirs, view, size: See :func:`mmkd.features.pair_as_samples`.
        most: See :func:`mmkd.analysis.samples.drawn_rows`.
    """
    ours, theirs = pair_as_samples(ours, theirs, view, size)
    kept = drawn_rows(len(ours), most).to(ours.device)
    return ours[kept], theirs[kept]


def _are_enough(ours: Tensor) -> bool:
    return len(ours) >= 2 * ours.shape[1]


def _of_features(ours: Tensor, theirs: Tensor) -> Measures:
    """What no projector decides, of samples ``[M, C_s]`` and ``[M, C_t]``."""
    found: Measures = dict(cka=linear_cka(ours, theirs)) if len(ours) >= LEAST_SAMPLES else {}
    if not _are_enough(ours):
        return found
    own, cross = correlation(ours, ours), correlation(ours, theirs)
    found |= dict(
        explained_variance=explained_variance(ours, theirs),
        self_correlation=root_mean_square(own, diagonal=False),
        cross_correlation=root_mean_square(cross),
    )
    for name, matrix in dict(self_correlation=own, cross_correlation=cross).items():
        found[f"{name}{MATRIX}"] = _few(_few(matrix).T).T
    return found


def _few(rows: Tensor) -> Tensor:
    return rows[:: max(1, math.ceil(len(rows) / _MOST_CHANNELS))]


def _of_projector(distiller: FeatureDistiller, ours: Tensor, theirs: Tensor) -> dict[str, float]:
    """Of samples as it is trained on them."""
    projector = distiller.projector
    is_of_samples = isinstance(projector, LinearProjector | MLPProjector | ProjectorEnsemble)
    if not (is_of_samples and _are_enough(ours)):
        return {}
    projected = projector(as_weights(projector, ours)).float()
    found = dict(passes=input_output_correlation(ours, projected))
    if isinstance(projector, LinearProjector):
        found |= _rest(distiller.normalizer, projector, ours, projected, theirs)
    return found


def _rest(
    normalizer: nn.Module,
    projector: LinearProjector,
    ours: Tensor,
    projected: Tensor,
    theirs: Tensor,
) -> dict[str, float]:
    """Eq. (7) for what the loss compares. BatchNorm takes each projected channel's scale out of the
    weight's hands: what is left at rest is the part of the teacher's channel that goes along."""
    weight = projector.linear.weight
    if isinstance(normalizer, BatchNormalizer):
        goes_along = (standardised(projected) * standardised(theirs)).mean(dim=0)
        deviation = centred(projected).square().mean(dim=0).sqrt()
        scale = goes_along / deviation.masked_fill(deviation == 0, 1)
        weight, theirs = scale[:, None] * as_float64(weight), standardised(theirs)
    elif not isinstance(normalizer, IdentityNormalizer):
        return {}
    return dict(rest=fixed_point_residual(centred(ours), centred(theirs), weight))


def _of_places(
    distiller: FeatureDistiller, ours: Tensor, theirs: Tensor, targets: Targets
) -> dict[str, float]:
    try:
        boxes = [each.corners for each in targets.boxes]
    except ValueError:  # A training without.
        return {}
    if not isinstance(distiller.projector, Projector):  # It may take samples alone.
        return {}
    projected = distiller.projector(as_weights(distiller.projector, ours)).float()
    projected, theirs = pair_as_maps(projected, theirs, targets.size)
    if projected.shape != theirs.shape:  # Compared in either side's own width.
        return {}
    if projected.numel() == projected.shape[1]:  # A single sample, which has no scale.
        return {}
    projected, theirs = (_as_compared(distiller, side) for side in (projected, theirs))
    places = cosine_by_place(projected, theirs, boxes, targets.size)
    return {f"cosine_{name}": value for name, value in places._asdict().items()}


def _as_compared(distiller: FeatureDistiller, feature: Tensor) -> Tensor:
    """A map, normalised as the loss sees it."""
    if not isinstance(distiller.normalizer, BatchNormalizer):
        return distiller.normalized(feature)
    # Which would wait for other processes, and they do not record.
    n, _, height, width = feature.shape
    samples = standardised(as_samples(feature))
    return samples.reshape(n, height, width, -1).permute(0, 3, 1, 2)


def _of_classes(ours: Tensor, theirs: Tensor, targets: Targets) -> dict[str, float]:
    try:
        labels = targets.one_class_each("dynamics")
    except ValueError:  # A training without, or with mixed ones.
        return {}
    if len(labels) != len(ours):  # Several classes an image.
        return {}
    return _between_classes(pooled(ours), pooled(theirs), labels)


def _of_objects(ours: Tensor, theirs: Tensor, targets: Targets) -> dict[str, float]:
    """The same of what boxes mark, each object a sample."""
    try:
        boxes = targets.boxes
    except ValueError:  # A training without.
        return {}
    corners = [each.corners for each in boxes]
    labels = torch.cat([each.classes.cpu() for each in boxes])
    ours, theirs = (in_boxes([side], corners, targets.size) for side in (ours, theirs))
    return _between_classes(ours, theirs, labels)


def _between_classes(ours: Tensor, theirs: Tensor, labels: Tensor) -> dict[str, float]:
    return dict(
        between_classes=between_class_cosine(ours, labels.to(ours.device)),
        teacher_between_classes=between_class_cosine(theirs, labels.to(ours.device)),
    )
