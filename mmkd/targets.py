"""What the images of a batch are known to show, for losses that need more than features."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from mmkd.numerics import at_least_float32

__all__ = ["FROM_TEACHER", "SHOWN", "Boxes", "Targets", "on_grid", "target_and_others"]

# What a loss can say that it reads of targets; of these the teacher tells the last.
FROM_TEACHER = "scores"
SHOWN = ("labels", "boxes", "indices", "regions", FROM_TEACHER)
T = TypeVar("T")
_FOREGROUND = 0.5
Value: TypeAlias = T | Callable[[], T] | None


class Boxes(NamedTuple):
    """The objects of one image.

    Args:
        corners: ``[K, 4]``, x1, y1, x2, y2 in pixels of the padded batch; K may be 0.
        classes: ``[K]``, indices from 0.
    """

    corners: Tensor
    classes: Tensor


class Targets:
    """Labels, boxes and indices of a batch of N images, each worked out when a loss asks for it.

    An adapter gives what its trainer knows, as a value or as a function that returns it.

    Args:
        size: Height and width of the padded batch in pixels. A feature map of ``h x w`` cells
            covers it, so that a box meets the map's grid scaled by ``w / width`` and
            ``h / height``.
        labels: Class indices ``[N]``, or probabilities ``[N, K]``.
        boxes: The objects of each image.
        indices: ``[N]``, the images' positions in the data set.
        regions: ``[P, 5]``, those that the student's head on regions was trained on: the image's
            position in the batch, then the corners in pixels of the padded batch.
        scores: ``[N, 1, h, w]``, the teacher's largest class probability at a cell.
        total_score: Their sum over the cells of all levels; None: these are all.
    """

    def __init__(
        self,
        size: tuple[int, int],
        *,
        labels: Value[Tensor] = None,
        boxes: Value[Sequence[Boxes]] = None,
        indices: Value[Tensor] = None,
        regions: Value[Tensor] = None,
        scores: Value[Tensor] = None,
        total_score: Tensor | None = None,
    ) -> None:
        self.size = size
        self._labels, self._boxes, self._indices = labels, boxes, indices
        self._regions, self._scores, self._total_score = regions, scores, total_score

    def with_scores(self, scores: Tensor, total_score: Tensor) -> Targets:
        """The same, with the scores of one level and their sum over all."""
        found = copy.copy(self)
        found._scores, found._total_score = scores, total_score
        found.__dict__.pop("scores", None)
        return found

    def with_boxes(self, boxes: Value[Sequence[Boxes]]) -> Targets:
        """The same, with other boxes; None for none."""
        found = copy.copy(self)
        found._boxes = boxes
        found.__dict__.pop("boxes", None)
        return found

    @cached_property
    def labels(self) -> Tensor:
        """Class indices ``[N]`` or probabilities ``[N, K]``.

        Raises:
            ValueError: The training has none.
        """
        return _value("class labels of images, as classifiers learn them", self._labels)

    def one_class_each(self, owner: str) -> Tensor:
        """Class indices ``[N]``.

        Args:
            owner: Who asks, for errors.

        Raises:
            ValueError: The training has none, or mixes classes.
        """
        if self.labels.ndim == 2:
            raise ValueError(f"{owner} needs one class an image, got mixed ones (mixup, cutmix)")
        return self.labels

    @cached_property
    def boxes(self) -> Sequence[Boxes]:
        """Of each image, in pixels of the padded batch.

        Raises:
            ValueError: The training has none.
        """
        return _value("boxes", self._boxes)

    @property
    def show_no_object(self) -> bool:
        """Whether it is known that no image of the batch holds a box."""
        try:
            return not any(len(each.corners) for each in self.boxes)
        except ValueError:
            return False

    @cached_property
    def indices(self) -> Tensor:
        """``[N]``, the images' positions in the data set.

        Raises:
            ValueError: The training has none.
        """
        return _value("image indices", self._indices)

    @cached_property
    def scores(self) -> Tensor:
        """``[N, 1, h, w]``, the teacher's largest class probability at each cell of the level that
        is compared.

        Raises:
            ValueError: The training has none.
        """
        return _value("the teacher's scores", self._scores)

    @property
    def total_score(self) -> Tensor:
        """A scalar, the sum of the scores over the images and all levels of the teacher's head.

        Raises:
            ValueError: The training has none.
        """
        return self.scores.sum() if self._total_score is None else self._total_score

    @cached_property
    def regions(self) -> Tensor:
        """``[P, 5]``, those that the student's head on regions was trained on.

        Raises:
            ValueError: The training has none.
        """
        return _value("regions, as the head of a two-stage detector has them", self._regions)

    def region_labels(self, background: int) -> Tensor:
        """``[P]``: of each region, the class of the box that it overlaps most, with an IoU of one
        half or more; else ``background``. Ren et al., *Faster R-CNN* (NeurIPS 2015).

        Raises:
            ValueError: The training has no boxes, or no regions.
        """
        # Slow to import, and needed by few.
        from torchvision.ops import box_iou

        regions = self.regions
        labels = torch.full((len(regions),), background, device=regions.device)
        for index, boxes in enumerate(self.boxes):
            if len(boxes.corners):
                own = (regions[:, 0] == index).nonzero()[:, 0]
                overlap, box = box_iou(regions[own, 1:], boxes.corners.to(regions)).max(dim=1)
                is_object = overlap >= _FOREGROUND
                labels[own[is_object]] = boxes.classes[box[is_object]]
        return labels


def target_and_others(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's logit of its own class ``[M]`` and those of the others ``[M, K - 1]``.

    Args:
        logits: ``[M, K]``.
        labels: ``[M]``.

    Raises:
        ValueError: Fewer than two classes, or other labels than rows.
    """
    rows, classes = logits.shape
    if classes < 2:
        raise ValueError(f"a target and others are 2 classes or more, got {classes}")
    if labels.shape != (rows,):
        raise ValueError(f"expected a label for each of {rows} rows, got {tuple(labels.shape)}")
    own = labels[:, None]
    # By their places, not by a mask, whose entries a device would have to count.
    others = torch.arange(classes - 1, device=logits.device).expand(rows, -1)
    return logits.gather(1, own)[:, 0], logits.gather(1, others + (others >= own))


def on_grid(scores: Tensor, feature: Tensor) -> Tensor:
    """Scores ``[N, 1, h, w]`` summed to a map's grid ``[N, C, H, W]``, in float32 at least."""
    grid = (feature.shape[2], feature.shape[3])
    scores = scores.to(at_least_float32(feature))
    if scores.shape[2:] == grid:
        return scores
    cells = scores[0].numel() / math.prod(grid)
    return adaptive_avg_pool2d(scores, grid) * cells


def _value(name: str, given: Value[T]) -> T:
    if given is None:
        raise ValueError(f"a loss asks for {name}, and the batches of this training hold none")
    return given() if callable(given) else given
