"""FGFI: Wang et al., *Distilling Object Detectors with Fine-grained Feature Imitation* (CVPR
2019)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mmkd.box_masks import cells_near_anchors
from mmkd.losses.base import Loss, Takes
from mmkd.numerics import at_least_float32, check_maps
from mmkd.registry import MODELS
from mmkd.targets import Targets

__all__ = ["FGFILoss"]


@MODELS.register_module()
class FGFILoss(Loss):
    """``sum M (t - s)^2 / (2 sum M)``, M the cells near objects (Eq. (2) of the paper).

    M is :func:`mmkd.box_masks.cells_near_anchors`. The paper's weight is 0.01, its adaptation of
    the student a 3x3 convolution with ReLU: ``projector=dict(type="mmkd.ConvConnector",
    layout="3x3", norm=False)``. Images without boxes add nothing.

    Args:
        scales: Sides of an anchor of ratio 1, in cells, around whose centres they lie (MMDetection
            has anchors around their corners). Give those of the detector's own anchors; a detector
            without anchors is served by the default.
        ratios: Height over width.
        threshold: Share of a box's largest IoU that a cell's anchor must exceed, from 0 to less
            than 1.

    Shapes: ``[N, C, H, W]`` and ``[N, C, H, W]`` with the boxes of N images to a scalar.

    Raises:
        ValueError: A setting out of range; shapes that differ, are empty or not of rank 4; a
            training whose batches hold no boxes.
    """

    takes = Takes(form="maps", targets=("boxes",))

    def __init__(
        self,
        scales: Sequence[float] = (8.0,),
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        threshold: float = 0.5,
    ) -> None:
        super().__init__()
        for name, values in (("scales", scales), ("ratios", ratios)):
            if not values or not all(each > 0 for each in values):
                raise ValueError(f"{name} must hold numbers above 0, got {values}")
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold must be from 0 to less than 1, got {threshold}")
        self.scales, self.ratios, self.threshold = scales, ratios, threshold

    def forward(self, student: Tensor, teacher: Tensor, *, targets: Targets) -> Tensor:
        check_maps(student, teacher)
        near = cells_near_anchors(
            [each.corners for each in targets.boxes],
            (student.shape[2], student.shape[3]),
            targets.size,
            scales=self.scales,
            ratios=self.ratios,
            threshold=self.threshold,
        ).to(student.device)
        difference = (at_least_float32(student) - at_least_float32(teacher)) * near[:, None]
        return difference.square().sum() / (2 * near.sum().clamp_min(1))
