"""What the images of a batch are known to show, for losses that need more than features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple, TypeAlias, TypeVar

from torch import Tensor

__all__ = ["Boxes", "Targets"]

T = TypeVar("T")
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
    """

    def __init__(
        self,
        size: tuple[int, int],
        *,
        labels: Value[Tensor] = None,
        boxes: Value[Sequence[Boxes]] = None,
        indices: Value[Tensor] = None,
    ) -> None:
        self.size = size
        self._labels, self._boxes, self._indices = labels, boxes, indices

    @cached_property
    def labels(self) -> Tensor:
        """Class indices ``[N]`` or probabilities ``[N, K]``.

        Raises:
            ValueError: The training has none.
        """
        return _value("class labels", self._labels)

    @cached_property
    def boxes(self) -> Sequence[Boxes]:
        """Of each image, in pixels of the padded batch.

        Raises:
            ValueError: The training has none.
        """
        return _value("boxes", self._boxes)

    @cached_property
    def indices(self) -> Tensor:
        """``[N]``, the images' positions in the data set.

        Raises:
            ValueError: The training has none.
        """
        return _value("image indices", self._indices)


def _value(name: str, given: Value[T]) -> T:
    if given is None:
        raise ValueError(f"a loss asks for {name}, and the batches of this training hold none")
    return given() if callable(given) else given
