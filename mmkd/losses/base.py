"""What every loss says of itself: what it compares, and what else it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from mmkd.numerics import check_temperature
from mmkd.targets import SHOWN

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
        in_pairs: Whether each level is compared with its own of the other side, so that there are
            as many of either; a distiller of several levels may do otherwise, a loss may not.
        targets: What it reads in ``targets=``, a :class:`mmkd.targets.Targets` that it also takes
            where it reads any: ``labels``, ``boxes``, ``indices``, ``regions``, which are looked
            for before a training, or ``scores``, for which the teacher runs up to its classes.
        own_widths: Whether either side comes in its own width, for a loss on images or maps that
            needs no projector, or has its own parts for it.
        cells: How many a map must have at least for the loss to tell anything: smaller levels are
            left out where every stride is asked for.
        levels: How many it needs at least, where it takes several.

    Raises:
        ValueError: ``targets`` are no tuple of these names; a single level that is in no pair.
    """

    form: Literal["samples", "images", "maps", "logits"] = "samples"
    view: str | None = None
    several_levels: bool = False
    in_pairs: bool = True
    targets: tuple[str, ...] = ()
    own_widths: bool = False
    cells: int = 1
    levels: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.targets, tuple) or not set(self.targets) <= set(SHOWN):
            raise ValueError(
                f"Takes(targets=...) must be a tuple of {', '.join(SHOWN)}, got {self.targets!r}"
            )
        if not (self.in_pairs or self.several_levels):
            raise ValueError("Takes(in_pairs=False) needs several_levels=True")


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
