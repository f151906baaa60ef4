"""CrossKD: Wang et al., *CrossKD: Cross-Head Knowledge Distillation for Dense Object Detection*
(CVPR 2024), from the paper alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from mmkd.features import evaluation_mode
from mmkd.losses.base import Loss, Takes
from mmkd.losses.ld import divergence_of_sides
from mmkd.numerics import as_weights, at_least_float32, check_maps
from mmkd.registry import MODELS
from mmkd.targets import Targets, on_grid

__all__ = ["CrossKDLoss", "standardized_like"]

_COMPARED = ("classes", "bins", "deltas", "distances")
# Of logarithms, so that no exponential overflows: of a box's sides over its anchor's, and of its
# distances, which are in pixels and longer than any image's.
_LARGEST_SIZE, _LONGEST_DISTANCE = 4.0, 16.0


def standardized_like(student: Tensor, teacher: Tensor, eps: float = 1e-6) -> Tensor:
    """The student's map with the teacher's mean and deviation, channel by channel over N, H, W.

    Args:
        student, teacher: ``[N, C, H, W]``.
        eps: Added to the student's deviation.
    """
    axes = (0, 2, 3)
    mean, theirs = (x.mean(dim=axes, keepdim=True) for x in (student, teacher))
    centred = student - mean
    # Away from 0, where the square root's gradient is infinite.
    deviation = (centred.square().mean(dim=axes, keepdim=True) + eps**2).sqrt()
    scale = (teacher - theirs).square().mean(dim=axes, keepdim=True).sqrt()
    return centred / deviation * scale + theirs


@MODELS.register_module()
class CrossKDLoss(Loss):
    """The teacher's prediction from its own head feature, and from the student's.

    ``teacher_classifier`` is what remains of the teacher's head, R: with the student's feature
    standardised like the teacher's, ``R(s)`` is compared with ``R(t)``, which is the teacher's own
    prediction. Equation (4) of the paper. Classes by the quality focal distance
    ``|sigmoid(p) - sigmoid(t)| BCE(p, sigmoid(t))``; bins of boxes' sides by the KL divergence at
    T = 1; other boxes by ``1 - GIoU``. Each is a sum over cells, of classes all of them, of boxes
    weighted by the teacher's largest class probability q; divided by the sum of q over the cells of
    all levels of the teacher's head, or by 1 where that is less. The paper's weights are 1 for
    classes, 4 for bins and 1 for GIoU, its features those after the third of four convolutions.

    Args:
        teacher_classifier: R; in a term, its paths (see :class:`mmkd.terms.Term`).
        compare: What R predicts: ``'classes'`` (a logit each), ``'bins'`` (of four sides),
            ``'deltas'`` (of anchors, as Faster R-CNN's; the mean over a cell's anchors) or
            ``'distances'`` (the logarithms of four distances from a cell, as FCOS's without
            ``norm_on_bbox``; with it they are no logarithms).
        stds: Of deltas: by what the detector's coder multiplies them.

    Shapes: ``[N, C, H, W]`` and ``[N, C, H, W]`` with the scores of N images to a scalar.

    Raises:
        ValueError: A setting out of range; shapes that differ, are empty or not of rank 4; in a
            term, an R whose output is none of what ``compare`` says.
    """

    takes = Takes(form="maps", targets=("scores",))

    def __init__(
        self,
        teacher_classifier: nn.Module,
        compare: Literal["classes", "bins", "deltas", "distances"] = "classes",
        stds: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    ) -> None:
        super().__init__()
        if compare not in _COMPARED:
            raise ValueError(f"compare must be one of {_COMPARED}, got {compare!r}")
        if len(stds) != 4 or not all(each > 0 for each in stds):
            raise ValueError(f"stds must hold 4 numbers above 0, got {stds}")
        # Neither trained nor kept with this loss.
        self._rest = (teacher_classifier,)
        self.compare, self.stds = compare, tuple(stds)

    def check_widths(self, student: int, teacher: int) -> None:
        """See :meth:`mmkd.losses.base.Loss.check_widths`: of the features any will do, which are
        projected; R's output is looked at."""
        [rest] = self._rest
        device = next(rest.parameters(), torch.zeros(())).device
        blank = torch.zeros(1, teacher, 8, 8, device=device)
        with torch.no_grad(), evaluation_mode(rest):
            width = rest(as_weights(rest, blank)).shape[1]
        fits = dict(
            classes=True,
            bins=width % 4 == 0 and width >= 8,
            deltas=width % 4 == 0,
            distances=width == 4,
        )
        if not fits[self.compare]:
            raise ValueError(
                f"compare={self.compare!r} does not fit the {width} channels that "
                "teacher_classifier gives: 'bins' takes 4 sides of 2 bins or more, 'deltas' 4 "
                "numbers an anchor, 'distances' 4 in all"
            )

    def forward(self, student: Tensor, teacher: Tensor, *, targets: Targets) -> Tensor:
        check_maps(student, teacher)
        [rest] = self._rest
        s, t = at_least_float32(student), at_least_float32(teacher)
        crossed = at_least_float32(rest(as_weights(rest, standardized_like(s, t))))
        own = at_least_float32(rest(as_weights(rest, t)))
        scores = on_grid(targets.scores, student)
        total = targets.total_score.to(scores).clamp_min(1)
        if self.compare == "classes":
            return _quality_focal(crossed, own).sum() / total
        return (scores[:, 0] * self._of_boxes(crossed, own)).sum() / total

    def _of_boxes(self, ours: Tensor, theirs: Tensor) -> Tensor:
        """``[N, H, W]``, the mean over anchors."""
        if self.compare == "bins":
            return divergence_of_sides(ours, theirs).mean(dim=1)
        # Slow to import, and needed by few.
        from torchvision.ops import generalized_box_iou_loss

        boxes = (self._corners(x.unflatten(1, (-1, 4)).movedim(2, -1)) for x in (ours, theirs))
        return generalized_box_iou_loss(*boxes).mean(dim=1)

    def _corners(self, values: Tensor) -> Tensor:
        """Boxes ``[..., 4]``, in units in which an overlap is what it is in pixels: pixels, or the
        anchor's own sides."""
        if self.compare == "distances":
            limited = values.clamp(-_LONGEST_DISTANCE, _LONGEST_DISTANCE)
            before, after = limited.exp().chunk(2, dim=-1)
            return torch.cat([-before, after], dim=-1)
        scaled = values * values.new_tensor(self.stds)
        centre, half = scaled[..., :2], scaled[..., 2:].clamp(max=_LARGEST_SIZE).exp() / 2
        return torch.cat([centre - half, centre + half], dim=-1)


def _quality_focal(ours: Tensor, theirs: Tensor) -> Tensor:
    quality = theirs.sigmoid()
    distance = (ours.sigmoid() - quality).abs()
    return distance * binary_cross_entropy_with_logits(ours, quality, reduction="none")
