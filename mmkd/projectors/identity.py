"""No projection: for logits, and for features in the teacher's space already."""

from __future__ import annotations

from torch import Tensor

from mmkd.projectors.base import Projector
from mmkd.registry import MODELS

__all__ = ["IdentityProjector"]


@MODELS.register_module()
class IdentityProjector(Projector):
    """The student's side as it is: for logits, and for features in the teacher's space already.

    Args:
        in_channels, out_channels: The student's and the teacher's channels, one number.

    Shapes: any to the same.

    Raises:
        ValueError: The two differ.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        if in_channels != out_channels:
            raise ValueError(
                f"IdentityProjector compares channels one to one, got {in_channels} of the student "
                f"and {out_channels} of the teacher: logits need the same classes on both sides, "
                "features a projector such as mmkd.LinearProjector"
            )

    def forward(self, x: Tensor) -> Tensor:
        return x
