"""CID: Deng & Zhang, *Comprehensive Knowledge Distillation with Causal Intervention*
(NeurIPS 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softmax

from mmkd.counted_calls import CountedCalls
from mmkd.distiller import Distiller, check_feature_and_logits, check_logits_come_last
from mmkd.distributed import all_reduce_sum, is_synchronized
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

__all__ = ["CIDDistiller", "class_distance", "sample_distance"]


def sample_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """``mean_n ||s_n - t_n||^2 / ||t_n||^2`` (Eq. (1)).

    Args:
        student: Projected features ``[N, C]``.
        teacher: Features ``[N, C]``; one of zeros counts as one of length 1.

    Returns:
        A scalar, float32 at least.
    """
    student, teacher = at_least_float32(student), at_least_float32(teacher)
    lengths = teacher.square().sum(dim=1)
    squares = (student - teacher).square().sum(dim=1)
    return (squares / lengths.masked_fill(lengths == 0, 1)).mean()


def class_distance(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """The mean over classes c of ``1 / n_c^2 sum_ij (cos(s_i, s_j) - cos(t_i, t_j))^2``, i and j
    among the n_c images of c, of classes with two images or more (Eq. (4)); 0 without any.

    Args:
        student, teacher: Features ``[N, C_s]`` and ``[N, C_t]``.
        labels: ``[N]``.

    Returns:
        A scalar, float32 at least.
    """
    ours, theirs = (inner_products(x, x) for x in map(unit_vectors, (student, teacher)))
    is_same = labels[:, None] == labels
    count = is_same.sum(dim=1).to(ours)
    is_counted = count > 1
    squares = (ours - theirs).square() * is_same
    means = (squares.sum(dim=1) / count.square()) * is_counted
    return means.sum() / (is_counted / count).sum().clamp_min(1)


@MODELS.register_module()
class CIDDistiller(Distiller):
    """Samples, classes and logits of the teacher, and contexts for the student's own head.

    ``logits KD_T + samples sample_distance(L f_s, f_t) + classes class_distance(f_s, f_t)`` of
    pooled features f and a linear layer L (sections 3.1 and 3.2). Besides it gathers each class's
    mean of f_s, weighed by the probability at T that the teacher gives an image's own class, over
    ``every`` iterations; it gives them to :class:`mmkd.models.context_head.ContextClsHead` in the
    first iteration after ``initial``, and then again and again (section 3.3): what is validated and
    saved after an epoch is what the head was trained with. A class that no image was of keeps the
    mean that it had.

    Args:
        student_channels, teacher_channels: Of the feature, and the number of classes.
        student_classifier: The student's head; in a term, its path.
        initial: Iterations before the head is given contexts; 20 epochs in the authors' program.
        every: Iterations from one to the next; an epoch.
        logits, samples, classes: Factors; 1, 10 and 1 from ResNet-56 to ResNet-20.
        temperature: T.
        weight: A number.
        seed: Of initial weights.

    Shapes: ``[[N, C, H, W] or [N, C], [N, K]]`` of either side and N labels to a scalar.

    Raises:
        ValueError: Other than two features; a setting out of range, or a share; a head without
            contexts, or for other features; a batch without labels, or with mixed ones.
    """

    takes = Takes(form="logits", several_levels=True, targets=("labels",), own_widths=True)
    sums: Tensor
    totals: Tensor

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        student_classifier: nn.Module,
        initial: int,
        every: int,
        logits: float = 1.0,
        samples: float = 10.0,
        classes: float = 1.0,
        temperature: float = 4.0,
        weight: float | Mapping[str, Any] = 1.0,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(weight)
        check_positive(initial=initial, every=every)
        check_factors(logits=logits, samples=samples, classes=classes)
        check_temperature(temperature)
        self._refuse_share(
            "until its contexts are known, the student has no loss of its own beside which a "
            "share could be kept"
        )
        check_feature_and_logits(type(self).__name__, student_channels, teacher_channels)
        ours, count = student_channels
        _check_head(student_classifier, (count, ours))
        # Not a submodule: it belongs to the student.
        self._head: tuple[Any] = (student_classifier,)
        self.initial, self.every = initial, every
        self.logits, self.samples, self.classes = logits, samples, classes
        self.temperature = temperature
        self.layer = linear_layer(ours, teacher_channels[0])
        initialize(self, torch.Generator().manual_seed(seed))
        self.register_buffer("sums", torch.zeros(count, ours))
        self.register_buffer("totals", torch.zeros(count))
        self.iterations = CountedCalls()

    def check_features(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> None:
        """See :meth:`mmkd.distiller.Distiller.check_features`."""
        check_logits_come_last(self._method, student, teacher)

    def distance(
        self,
        student: Sequence[Tensor],
        teacher: Sequence[Tensor],
        targets: Targets | None = None,
    ) -> Tensor:
        """See :meth:`mmkd.distiller.Distiller.distance`; where it trains, it fills the head."""
        targets = self._needed(targets)
        labels = targets.one_class_each("CIDDistiller")
        ours, theirs = (pooled(at_least_float32(x)) for x in (student[0], teacher[0].detach()))
        logits, their_logits = at_least_float32(student[1]), at_least_float32(teacher[1]).detach()
        projected = self.layer(as_weights(self, ours))
        found = (
            self.logits * kd(logits, their_logits, self.temperature)
            + self.samples * sample_distance(projected, theirs)
            + self.classes * class_distance(ours, theirs, labels)
        )
        if self.training:
            self._gather(ours.detach(), their_logits, labels)
        return found

    @torch.no_grad()
    def _gather(self, features: Tensor, logits: Tensor, labels: Tensor) -> None:
        done = self.iterations.count()
        if done < self.initial - self.every:
            return
        if done >= self.initial and (done - self.initial) % self.every == 0:
            self._fill()
        likely = softmax(logits / self.temperature, dim=1).gather(1, labels[:, None])
        self.sums.index_add_(0, labels, (likely * features).to(self.sums))
        self.totals.index_add_(0, labels, likely[:, 0].to(self.totals))

    def _fill(self) -> None:
        sums, totals = self.sums, self.totals
        if is_synchronized(None):
            sums, totals = all_reduce_sum(sums), all_reduce_sum(totals)
        [head] = self._head
        is_seen = (totals > 0)[:, None]
        means = sums / totals[:, None].masked_fill(~is_seen, 1)
        head.context.copy_(torch.where(is_seen, means, head.context))
        head.is_known.fill_(True)
        self.sums.zero_()
        self.totals.zero_()


def _check_head(head: nn.Module, shape: tuple[int, int]) -> None:
    found = getattr(head, "context", None)
    if not isinstance(found, Tensor) or not hasattr(head, "is_known"):
        raise ValueError(
            "CIDDistiller fills the contexts of a mmkd.ContextClsHead, and student_classifier is a "
            f"{type(head).__name__}: give the model head=dict(type='mmkd.ContextClsHead', ...), "
            "and the term student_classifier='head'"
        )
    if tuple(found.shape) != shape:
        raise ValueError(
            f"the head's contexts are of {found.shape[0]} classes and {found.shape[1]} channels, "
            f"the student's logits of {shape[0]} and its feature of {shape[1]}: tap 'backbone' and "
            "'head.fc'"
        )
