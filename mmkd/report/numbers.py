"""Numbers as every table, figure and sentence writes them: signs, spreads, intervals, counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean, stdev

from mmkd.evaluation.comparison import Score
from mmkd.evaluation.intervals import Estimate

__all__ = [
    "NOTHING",
    "counted",
    "ends",
    "estimate",
    "millions",
    "score",
    "share",
    "share_estimate",
    "signed",
    "span",
    "spread",
    "typographic",
    "undefined_or",
]

# For a value that is undefined or unknown.
NOTHING = "–"


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign; what is rounded to nothing is +0.0."""
    # Zero is added because a small negative number rounds to -0.0.
    return f"{round(value, digits) + 0.0:+.{digits}f}"


def share(value: float) -> str:
    """A fraction in percent."""
    return f"{value:.0%}"


def spread(values: Sequence[float]) -> str:
    """Mean, and standard deviation where there are several values."""
    return _mean(mean(values), stdev(values) if len(values) > 1 else None)


def score(found: Score) -> str:
    """Mean and standard deviation of a metric's seeds; a dash where it is undefined."""
    return NOTHING if math.isnan(found.mean) else _mean(found.mean, found.spread)


def _mean(value: float, deviation: float | None) -> str:
    return f"{value:.1f}" + (f" ± {deviation:.1f}" if deviation is not None else "")


def ends(found: Estimate, *, is_share: bool = False) -> tuple[str, ...]:
    """Low and high end of an estimate's interval; empty without one."""
    write = share if is_share else signed
    return (write(found.low), write(found.high)) if found.has_interval else ()


def span(found: Estimate, *, is_share: bool = False) -> str:
    """The interval of an estimate in a sentence, as +1.0 to +2.5; empty without one."""
    return " to ".join(ends(found, is_share=is_share))


def estimate(found: Estimate) -> str:
    """A difference without its interval; a dash where it is undefined."""
    return NOTHING if math.isnan(found.value) else signed(found.value)


def share_estimate(found: Estimate) -> str:
    """A share with its interval in a sentence."""
    interval = f" ({span(found, is_share=True)})" if found.has_interval else ""
    return f"{share(found.value)}{interval}"


def undefined_or(value: float) -> str:
    """A number of any size, to four digits."""
    return f"{value:.4g}" if math.isfinite(value) else "undefined"


def millions(parameters: int) -> str:
    """A number of parameters."""
    return f"{parameters / 1e6:.2f} M"


def counted(count: int, noun: str) -> str:
    """A number and what it counts, as 1 seed and 2 seeds."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def typographic(number: str) -> str:
    """With a minus sign for the hyphen, which stands only where files and terminals are plain."""
    return number.replace("-", "−")
