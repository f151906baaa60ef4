"""Numbers as they are written everywhere."""

from __future__ import annotations

import math

import pytest

from mmkd.evaluation.comparison import Score
from mmkd.evaluation.intervals import Estimate
from mmkd.report import numbers

GAIN = Estimate(1.23, -0.04, 2.5)
ALONE = Estimate(0.444, math.nan, math.nan)


@pytest.mark.parametrize(
    ("value", "text"), [(1.25, "+1.2"), (-1.0, "-1.0"), (-0.04, "+0.0"), (0.0, "+0.0")]
)
def test_signs(value: float, text: str) -> None:
    assert numbers.signed(value) == text
    assert numbers.typographic(text) == text.replace("-", "\N{MINUS SIGN}")


def test_spread_of_seeds() -> None:
    assert numbers.spread([12.34]) == "12.3"
    assert numbers.spread([1.0, 3.0]) == "2.0 ± 1.4"
    assert numbers.score(Score(2.0, math.sqrt(2), [1.0, 3.0])) == "2.0 ± 1.4"
    assert numbers.score(Score(12.34, None, [12.34])) == "12.3"
    assert numbers.score(Score(math.nan, None, [math.nan])) == "–"


def test_intervals() -> None:
    assert numbers.ends(GAIN) == ("+0.0", "+2.5")
    assert numbers.span(GAIN) == "+0.0 to +2.5"
    assert (numbers.ends(ALONE), numbers.span(ALONE)) == ((), "")
    assert numbers.estimate(GAIN) == "+1.2"
    assert numbers.estimate(Estimate(math.nan, math.nan, math.nan)) == "–"
    assert numbers.share_estimate(ALONE) == "44%"
    assert numbers.share_estimate(Estimate(0.444, 0.4, 0.5)) == "44% (40% to 50%)"


def test_counts() -> None:
    assert numbers.counted(1, "seed") == "1 seed"
    assert numbers.counted(2000, "object") == "2,000 objects"
    assert numbers.millions(1_234_567) == "1.23 M"
    assert [numbers.undefined_or(value) for value in (1234.56, math.inf)] == ["1235", "undefined"]
