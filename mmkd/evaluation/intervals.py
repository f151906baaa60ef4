"""Differences between runs, and how far other images and other seeds would move them.

Images and seeds move a difference independently of each other. What images do, the bootstrap tells
(:mod:`mmkd.evaluation.bootstrap`); what seeds do, Student's t of the seeds' own differences. The
two distances from the value are added as squares, each end on its own: the method of variance
estimates recovery (Zou and Donner, Construction of confidence intervals about effect measures: a
general approach, Statistics in Medicine 27, 2008).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

__all__ = ["Estimate", "SeedMargin", "interval_of", "no_interval", "seed_margin"]

# Ends of the interval of 95%, in percent.
_ENDS = (2.5, 97.5)


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95% interval; the ends are nan without one.

    Args:
        value: The mean over seeds.
        low: End of the interval.
        high: The other.
        seeds: The figure of each seed, where there are several pairs of runs.
        holds_for_seeds: Whether the interval holds for seeds and images together, or for other
            images alone: what other seeds would do, one seed does not tell.
    """

    value: float
    low: float
    high: float
    seeds: tuple[float, ...] = ()
    holds_for_seeds: bool = False

    @property
    def has_interval(self) -> bool:
        """Whether there is an interval."""
        return not math.isnan(self.low)

    @property
    def over(self) -> str:
        """What else the interval holds for."""
        return "seeds and images" if self.holds_for_seeds else "images"

    @property
    def seeds_disagree(self) -> bool:
        """Whether some seeds are above zero and others below it."""
        return any(each > 0 for each in self.seeds) and any(each < 0 for each in self.seeds)

    @property
    def is_clear(self) -> bool:
        """Whether the interval lies on one side of zero, and no two seeds on different ones; not
        without an interval."""
        return (self.low > 0 or self.high < 0) and not self.seeds_disagree


@dataclass(frozen=True)
class SeedMargin:
    """How far other seeds may move a difference.

    Args:
        half_width: Of the 95% interval over seeds; 0 where nothing is known of them.
        is_known: Whether it is.
        seeds: The difference of each pair of seeds, where there are several.
    """

    half_width: float = 0.0
    is_known: bool = False
    seeds: tuple[float, ...] = ()


def no_interval(value: float, seeds: tuple[float, ...] = ()) -> Estimate:
    """An estimate without an interval."""
    return Estimate(value, math.nan, math.nan, seeds)


def interval_of(value: float, draws: NDArray[np.float64], margin: SeedMargin) -> Estimate:
    """An estimate with the interval over images, widened to hold for seeds too.

    Args:
        value: The mean over seeds.
        draws: The same of each resample of the images, whose percentiles are the interval over
            images (Efron and Tibshirani, An introduction to the bootstrap, chapter 13). Draws
            without a value do not count; where the value is undefined as a whole, so is the
            interval.
        margin: Of the seeds.
    """
    defined = draws[~np.isnan(draws)]
    if not defined.size:
        return no_interval(value, margin.seeds)
    low, high = map(float, np.percentile(defined, _ENDS))
    if margin.is_known:
        # A percentile that lies on the other side of the value widens nothing.
        low = value - math.hypot(max(value - low, 0.0), margin.half_width)
        high = value + math.hypot(max(high - value, 0.0), margin.half_width)
    return Estimate(value, low, high, margin.seeds, margin.is_known)


def seed_margin(
    own: Sequence[float], base: Sequence[float], *, paired: bool, is_one_network: bool
) -> SeedMargin:
    """The margin of a difference between the means of two groups of seeds.

    Args:
        own: A value a seed.
        base: Likewise, of the baseline.
        paired: Whether they belong together one by one: their differences are judged.
        is_one_network: Whether a single value of ``own`` is that of the very network asked about,
            as of a teacher: then seeds move the baseline alone.
    """
    if paired:
        seeds = tuple(a - b for a, b in zip(own, base, strict=True))
        return SeedMargin(_half_width(seeds), True, seeds) if len(seeds) > 1 else SeedMargin()
    if len(base) < 2 or (len(own) < 2 and not is_one_network):
        return SeedMargin()
    widths = [_half_width(values) for values in (own, base) if len(values) > 1]
    return SeedMargin(math.hypot(*widths), True)


def _half_width(values: Sequence[float]) -> float:
    """Of the 95% interval of a mean: Student's t with one degree of freedom less than values."""
    count = len(values)
    quantile = float(stdtrit(count - 1, _ENDS[1] / 100))
    return quantile * float(np.std(values, ddof=1)) / math.sqrt(count)
