"""The distance of Ultralytics' own ``distill_model`` (8.4): squares where the teacher sees
objects."""

from __future__ import annotations

from torch import Tensor

from mmkd.losses.base import Loss, Takes
from mmkd.numerics import at_least_float32, check_maps
from mmkd.registry import MODELS
from mmkd.targets import Targets, on_grid

__all__ = ["ScoreWeightedL2Loss"]


@MODELS.register_module()
class ScoreWeightedL2Loss(Loss):
    """``sum q (s - t)^2 / (C sum q)``, q the teacher's largest class probability at a cell; both
    sums over one level.

    Its weight there is 6, its projector 1x1, ReLU, 1x1 of the teacher's width
    (``projector=dict(type="mmkd.MLPProjector", hidden_channels=None)``), on every level of the
    neck. Of YOLO26, whose head has two branches, q there is of the mean of both branches' logits;
    here it is of the one-to-many branch's, ``'head.classes'``.

    Shapes: ``[N, C, H, W]`` and ``[N, C, H, W]`` to a scalar.

    Raises:
        ValueError: Shapes that differ, are empty or not of rank 4.
    """

    takes = Takes(form="maps", targets=("scores",))

    def forward(self, student: Tensor, teacher: Tensor, *, targets: Targets) -> Tensor:
        check_maps(student, teacher)
        scores = on_grid(targets.scores, student)
        squares = (at_least_float32(student) - at_least_float32(teacher)).square()
        total = scores.sum().maximum(scores.new_tensor(1e-12))
        return (scores * squares).sum() / (student.shape[1] * total)
