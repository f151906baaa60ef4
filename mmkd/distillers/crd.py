"""CRD: Tian et al., *Contrastive Representation Distillation* (ICLR 2020)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from mmkd.distiller import Distiller
from mmkd.distributed import gathered, is_synchronized
from mmkd.features import pair_as_samples
from mmkd.initial_weights import initialize, linear_layer
from mmkd.losses.base import Takes
from mmkd.numerics import (
    as_weights,
    at_least_float32,
    check_positive,
    check_temperature,
    inner_products,
    unit_vectors,
)
from mmkd.registry import MODELS
from mmkd.seeded_draws import SeededDraws
from mmkd.targets import Targets

__all__ = ["CRDDistiller", "contrast", "drawn_negatives"]

_UNKNOWN = -1


def contrast(logits: Tensor, num_images: int) -> Tensor:
    """``- mean (log h_0 + sum_k log(1 - h_k))`` with ``h = e^x / (e^x + K / M)``.

    How well pairs of one image are told from pairs of two: Eqs. (10), (18) and (19) of the paper.

    Args:
        logits: x, ``[N, 1 + K]``, of an image with itself, then with K others.
        num_images: M, of the data set.

    Returns:
        A scalar.
    """
    noise = logits.new_tensor(math.log((logits.shape[1] - 1) / num_images))
    either = torch.logaddexp(logits, noise)
    same, others = (logits - either)[:, 0], (noise - either)[:, 1:]
    return -(same + others.sum(dim=1)).mean()


def drawn_negatives(draws: Tensor, labels: Tensor, own: Tensor | None) -> Tensor:
    """Positions ``[N, K]`` of images of the data set.

    Args:
        draws: ``[N, K]``, in [0, 1).
        labels: ``[M]``, of the data set; -1 where not known yet.
        own: ``[N]``, classes of which none is to be drawn, unless all images are of them; None: any
            image may be.
    """
    if own is None:
        return (draws * len(labels)).long()
    order = labels.argsort(stable=True)
    by_class = labels[order]
    # Where the images of a class begin and end; what comes after them moves down by their number.
    begin, end = (torch.searchsorted(by_class, own, right=right) for right in (False, True))
    count = (end - begin)[:, None]
    count = count.masked_fill(count == len(labels), 0)
    place = (draws * (len(labels) - count)).long()
    return order[torch.where(place < begin[:, None], place, place + count)]


@MODELS.register_module()
class CRDDistiller(Distiller):
    """Each side tells an image's feature on the other side from those of other images.

    Pooled features of both sides go through a linear layer each to vectors of length 1. Those of
    the whole data set are kept in two banks, from which other images come; of a batch's images the
    banks move towards what was seen. The term is the sum of student against teacher's bank and
    teacher against student's (:func:`contrast`, logits ``x = g_s . g_t / T - log Z``; Z makes the
    mean of ``M e^x`` over the first batch 1). Section 3 and appendix of the paper; the defaults are
    those of CIFAR-100, where its weight is 0.8.

    Args:
        student_channels, teacher_channels: Widths.
        num_images: M, of the training set, whose positions ``targets.indices`` are.
        negatives: K, of other images for each.
        width: Of the vectors.
        temperature: T.
        momentum: Of the banks: the share of the old vector.
        exact: Whether other images are of other classes, as far as labels were seen; else any.
        weight: See :class:`mmkd.distiller.Distiller`.
        seed: Of initial weights, banks and draws.

    Shapes: ``[N, C_s]``, ``[N, C_s, H, W]`` or ``[N, L, C_s]``, and the same of C_t, with the
    positions (and labels, if exact) of N images, to a scalar. Memory: ``2 M width`` numbers, kept
    in checkpoints. With several processes the banks see all their images.

    Raises:
        ValueError: A setting out of range; a batch without positions, or with one beyond M.
    """

    takes = Takes(form="images", own_widths=True, targets=("indices",))
    student_bank: Tensor
    teacher_bank: Tensor
    labels: Tensor
    log_z: Tensor

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        num_images: int,
        negatives: int = 16384,
        width: int = 128,
        temperature: float = 0.07,
        momentum: float = 0.5,
        exact: bool = True,
        weight: float | Mapping[str, Any] = 1.0,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(weight)
        check_positive(num_images=num_images, negatives=negatives, width=width)
        check_temperature(temperature)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be 0 or more and below 1, got {momentum}")
        self.num_images, self.negatives = num_images, negatives
        self.temperature, self.momentum, self.exact = temperature, momentum, exact
        if exact:
            self.takes = replace(self.takes, targets=("indices", "labels"))
        self.student_embedding = linear_layer(student_channels, width)
        self.teacher_embedding = linear_layer(teacher_channels, width)
        generator = torch.Generator().manual_seed(seed)
        initialize(self, generator)
        for name in ("student_bank", "teacher_bank"):
            drawn = torch.randn(num_images, width, generator=generator)
            self.register_buffer(name, normalize(drawn, dim=1))
        self.register_buffer("labels", torch.full((num_images,), _UNKNOWN))
        self.register_buffer("log_z", torch.full((2,), math.nan))
        self.draws = SeededDraws(seed)

    def distance(self, student: Tensor, teacher: Tensor, targets: Targets | None = None) -> Tensor:
        """See :meth:`mmkd.distiller.Distiller.distance`; moves the banks, where it trains."""
        targets = self._needed(targets)
        pair = pair_as_samples(student, teacher.detach(), "global")
        with torch.autocast(device_type=student.device.type, enabled=False):
            ours, theirs = (
                self._embedded(layer, x)
                for layer, x in zip(
                    (self.student_embedding, self.teacher_embedding), pair, strict=True
                )
            )
            indices = self._positions(targets, ours.device)
            labels = targets.one_class_each("CRDDistiller").to(indices) if self.exact else None
            is_first = self.draws.so_far() == 0
            draws = self.draws((len(indices), self.negatives), ours.device)
            others = drawn_negatives(draws, self.labels, labels)
            chosen = torch.cat([indices[:, None], others], dim=1)
            logits = [
                inner_products(each, bank).gather(1, chosen) / self.temperature
                for each, bank in ((ours, self.teacher_bank), (theirs, self.student_bank))
            ]
            if is_first:
                self._note_z(logits)
            found = sum(
                (
                    contrast(each - log_z, self.num_images)
                    for each, log_z in zip(logits, self.log_z, strict=True)
                ),
                ours.new_zeros(()),
            )
        if self.training:
            self._remember(indices, labels, ours, theirs)
        return found

    def _embedded(self, layer: nn.Module, x: Tensor) -> Tensor:
        return unit_vectors(layer(as_weights(layer, at_least_float32(x))))

    def _positions(self, targets: Targets, device: torch.device) -> Tensor:
        indices = targets.indices
        first, last = (int(each) for each in indices.aminmax())
        if first < 0 or last >= self.num_images:
            raise ValueError(
                f"num_images is {self.num_images}, and a batch holds the image at position "
                f"{first if first < 0 else last}: give the size of the training set"
            )
        return indices.to(device)

    def _note_z(self, logits: list[Tensor]) -> None:
        # A z that is there stays: no number of it leaves the device.
        with torch.no_grad():
            found = torch.stack([_log_of_mean(each.flatten()) for each in logits])
            if is_synchronized(None):
                found = _log_of_mean(gathered(found[None]))
            found = found + math.log(self.num_images)
            self.log_z.copy_(torch.where(self.log_z.isnan(), found, self.log_z))

    @torch.no_grad()
    def _remember(self, indices: Tensor, labels: Tensor | None, *sides: Tensor) -> None:
        shared = [indices, *sides] if labels is None else [indices, *sides, labels]
        if is_synchronized(None):
            shared = [gathered(each) for each in shared]
        where, ours, theirs, *classes = shared
        self.student_bank = self._moved(self.student_bank, where, ours)
        self.teacher_bank = self._moved(self.teacher_bank, where, theirs)
        for each in classes:
            self.labels[where] = each

    def _moved(self, bank: Tensor, where: Tensor, seen: Tensor) -> Tensor:
        # Another tensor, for the backward pass still needs the old one.
        vectors = self.momentum * bank[where] + (1 - self.momentum) * seen.to(bank)
        return bank.index_copy(0, where, unit_vectors(vectors))


def _log_of_mean(logs: Tensor) -> Tensor:
    """``log mean e^x`` over the first axis, where ``e^x`` itself may overflow."""
    return logs.logsumexp(dim=0) - math.log(len(logs))
