"""What every loss says of itself: what it compares, and what else it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from mmkd.numerics import check_temperature

__all__ = ["VIEWS", "Loss", "Takes", "TemperatureLoss"]

# How a feature can be seen, by form; the first unless a loss or a term says another.
VIEWS = {
    "samples": ("dense", "global"),
    "images": ("global", "flat"),
    "logits": ("dense", "global"),
    "maps": ("map",),
}


@dataclass(frozen=True)
class Takes:
    """What a loss, or a term's own distiller, is given.

    Args:
        form: ``'samples'`` ``[M, C]``; ``'images'`` ``[N, D_s]`` and ``[N, D_t]``, a row an image,
            whose relations are compared; ``'maps'`` ``[N, C, H, W]`` of both sides on one grid; or
            ``'logits'`` ``[N, K]``, compared as they are.
        view: How a feature is seen, of those that the form allows; None for the first of them.
        several_levels: Whether each side is a list with one entry a level.
        targets: Whether it also takes ``targets=``, a :class:`mmkd.targets.Targets`; or the names
            of what it reads there (``('boxes',)``), which is then looked for before a training.
        scores: Whether the targets also hold the teacher's class scores at the level's cells, and
            their sum over all levels.
        own_widths: Whether either side comes in its own width, for a loss on images or maps that
            needs no projector, or has its own parts for it.
    """

    form: Literal["samples", "images", "maps", "logits"] = "samples"
    view: str | None = None
    several_levels: bool = False
    targets: bool | tuple[str, ...] = False
    scores: bool = False
    own_widths: bool = False

    @property
    def read(self) -> tuple[str, ...]:
        """The attributes of the targets that are known to be read."""
        return self.targets if isinstance(self.targets, tuple) else ()


class Loss(nn.Module):
    """A distance ``loss(student, teacher) -> scalar``, without a weight, in float32 at least.

    Attributes:
        takes: What it is given. A module that is no ``Loss`` is given samples.
    """

    takes: Takes = Takes()

    def check_widths(self, student: int, teacher: int) -> None:
        """Raises, before any training, where features of these channels cannot be compared.

        Args:
            student, teacher: Channels of a level, before any projector.

        Raises:
            ValueError: What differs, and what to change.
        """


class TemperatureLoss(Loss):
    """A loss of distributions that a temperature softens.

    Args:
        temperature: T, above 0.

    Raises:
        ValueError: A temperature out of range.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature
