"""SSKD: Xu et al., *Knowledge Distillation Meets Self-Supervision* (ECCV 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

from mmkd.counted_calls import CountedCalls
from mmkd.distiller import Distiller, check_feature_and_logits, check_logits_come_last
from mmkd.features import pooled
from mmkd.initial_weights import initialize, linear_layer
from mmkd.losses.base import Takes
from mmkd.losses.kd import kd
from mmkd.numerics import (
    as_weights,
    at_least_float32,
    check_factors,
    check_positive,
    check_temperature,
    inner_products,
    unit_vectors,
)
from mmkd.registry import MODELS
from mmkd.targets import Targets

__all__ = ["SSKDDistiller", "kept", "place_of"]

# An image and its turns by 90, 180 and 270 degrees.
TURNS = 4


def place_of(scores: Tensor, columns: Tensor) -> Tensor:
    """How many of a row's scores are higher than that of its column, ``[M]``.

    Args:
        scores: ``[M, K]``.
        columns: ``[M]``.
    """
    own = scores.gather(1, columns[:, None])
    return (scores > own).sum(dim=1)


def kept(places: Tensor, ratio: float) -> Tensor:
    """Which rows a student is to learn from (section 3.3): those at place 0, where the teacher is
    right, and of the others the share ``ratio``, rounded down, at the best places, ``[M]``.

    Args:
        places: ``[M]``, see :func:`place_of`.
        ratio: From 0 to 1.
    """
    is_wrong = places > 0
    count = (~is_wrong).sum() + (is_wrong.sum() * ratio).floor()
    order = places.argsort(stable=True)
    ranks = torch.arange(len(order), device=order.device)
    return torch.empty_like(order).scatter_(0, order, ranks) < count


@MODELS.register_module()
class SSKDDistiller(Distiller):
    """What a teacher makes of turned images, and which of them it takes for one another.

    ``normal KD_T(originals) + turned KD_T(kept turns) + relations KL(kept turns)``. The last is of
    ``softmax(cos(z_turned, z_original) / t)`` over the batch's originals, times t^2, of vectors z
    that a network of two linear layers on either side makes of the pooled feature. Of the turned
    images are kept those that the teacher recognises and, by :func:`kept`, the better part of the
    others: of all classes in the second part, of the batch's images in the third.

    In its first iterations, in the place of the third part, the term trains the teacher's network
    z to find each turned image's original (Eq. (1)), with a gradient that no weight changes (a
    schedule does); then that network stands still. The authors do so before the student's training.
    Defaults are theirs on CIFAR-100. The batch comes from
    :class:`mmkd.models.views.RotationPreprocessor`, which leaves turned images out of the student's
    own cross-entropy.

    Args:
        student_channels, teacher_channels: Of the feature, and the number of classes.
        pretext: Iterations in which the teacher's network learns.
        normal, turned, relations: Factors of the three parts.
        temperature: T, of logits.
        relation_temperature: t.
        kept_turned, kept_relations: Shares of what the teacher gets wrong, 0 to 1.
        weight: A number.
        seed: Of initial weights.

    Shapes: ``[[4 N, C, H, W] or [4 N, C], [4 N, K]]`` of either side and the N originals' labels,
    first the originals, to a scalar.

    Raises:
        ValueError: Other than two features; a setting out of range; a share as the weight; a batch
            that was not turned.
    """

    takes = Takes(form="logits", several_levels=True, targets=("labels",), own_widths=True)

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        pretext: int,
        normal: float = 0.9,
        turned: float = 2.7,
        relations: float = 10.0,
        temperature: float = 4.0,
        relation_temperature: float = 0.5,
        kept_turned: float = 1.0,
        kept_relations: float = 0.75,
        weight: float | Mapping[str, Any] = 1.0,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(weight)
        check_positive(pretext=pretext)
        check_factors(normal=normal, turned=turned, relations=relations)
        for each in (temperature, relation_temperature):
            check_temperature(each)
        for name, ratio in (("kept_turned", kept_turned), ("kept_relations", kept_relations)):
            if not 0 <= ratio <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {ratio}")
        self._refuse_share(
            "while the teacher's network learns, a part of the distance is not the student's"
        )
        check_feature_and_logits(type(self).__name__, student_channels, teacher_channels)
        self.pretext = pretext
        self.normal, self.turned, self.relations = normal, turned, relations
        self.temperature, self.relation_temperature = temperature, relation_temperature
        self.kept_turned, self.kept_relations = kept_turned, kept_relations
        self.student_network = _network(student_channels[0])
        self.teacher_network = _network(teacher_channels[0])
        initialize(self, torch.Generator().manual_seed(seed))
        self.iterations = CountedCalls()

    def check_features(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> None:
        """See :meth:`mmkd.distiller.Distiller.check_features`."""
        check_logits_come_last(self._method, student, teacher)

    def check_targets(self, targets: Targets) -> None:
        """Turned images have no label, which :meth:`distance` looks at itself."""

    def distance(
        self,
        student: Sequence[Tensor],
        teacher: Sequence[Tensor],
        targets: Targets | None = None,
    ) -> Tensor:
        """See :meth:`mmkd.distiller.Distiller.distance`."""
        targets = self._needed(targets)
        done = self.iterations.count() if self.training else self.iterations.so_far()
        logits, theirs = (at_least_float32(side[1]) for side in (student, teacher))
        labels = _labels_of_originals(targets, len(logits), is_looked_at=done == 0)
        images = len(labels)
        theirs = theirs.detach()
        found = self.normal * kd(logits[:images], theirs[:images], self.temperature)
        of_turns = kept(place_of(theirs[images:], labels.repeat(TURNS - 1)), self.kept_turned)
        found = found + self.turned * _mean_kl(
            logits[images:], theirs[images:], self.temperature, of_turns
        )
        feature = teacher[0].detach()
        if done < self.pretext:
            cosines = _cosines(self.teacher_network, feature, images)
            return found + cross_entropy(cosines, _originals(cosines)) / (self._fixed or 1.0)
        with torch.no_grad():
            cosines = _cosines(self.teacher_network, feature, images)
        is_kept = kept(place_of(cosines, _originals(cosines)), self.kept_relations)
        ours = _cosines(self.student_network, student[0], images)
        return found + self.relations * _mean_kl(ours, cosines, self.relation_temperature, is_kept)


def _labels_of_originals(targets: Targets, rows: int, is_looked_at: bool) -> Tensor:
    labels = targets.one_class_each("SSKDDistiller")
    originals = rows // TURNS
    # Where a label is looked at, a device is waited for.
    if rows % TURNS or (is_looked_at and bool((labels[originals:] >= 0).any())):
        raise ValueError(
            "SSKDDistiller takes batches of images and their turns: give the student "
            "data_preprocessor=dict(type='mmkd.RotationPreprocessor', ...)"
        )
    return labels[:originals]


def _network(channels: int) -> nn.Sequential:
    return nn.Sequential(
        linear_layer(channels, channels), nn.ReLU(), linear_layer(channels, channels)
    )


def _cosines(network: nn.Module, feature: Tensor, images: int) -> Tensor:
    """Of each turned image with each original, ``[3 N, N]``."""
    found = network(as_weights(network, pooled(at_least_float32(feature))))
    vectors = unit_vectors(at_least_float32(found))
    return inner_products(vectors[images:], vectors[:images])


def _originals(cosines: Tensor) -> Tensor:
    rows, images = cosines.shape
    return torch.arange(images, device=cosines.device).repeat(rows // images)


def _mean_kl(student: Tensor, teacher: Tensor, temperature: float, is_kept: Tensor) -> Tensor:
    """``T^2 KL(teacher || student)``, its mean over the rows that are kept; 0 without any."""
    ours = log_softmax(student / temperature, dim=1)
    theirs = softmax(teacher / temperature, dim=1)
    rows = kl_div(ours, theirs, reduction="none").sum(dim=1)
    return temperature**2 * (rows * is_kept).sum() / is_kept.sum().clamp_min(1)
