"""Intervals over seeds and images: by hand, by a library's t test, by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mmkd.evaluation.intervals import Estimate, SeedMargin, interval_of, seed_margin

DRAWS = np.linspace(-1.0, 3.0, 401)  # 95% of them from -0.9 to 2.9


def test_of_one_seed_it_is_the_percentiles() -> None:
    found = interval_of(1.0, DRAWS, SeedMargin())
    assert (found.low, found.high) == pytest.approx((-0.9, 2.9))
    assert found.over == "images" and not found.seeds


def test_margins_add_as_squares() -> None:
    found = interval_of(1.0, DRAWS, SeedMargin(2.0, True, (1.0, 1.0)))
    width = math.hypot(1.9, 2.0)
    assert (found.low, found.high) == pytest.approx((1 - width, 1 + width))
    assert found.over == "seeds and images"


def test_percentiles_beside_the_value_widen_nothing() -> None:
    found = interval_of(5.0, DRAWS, SeedMargin(2.0, True))
    assert (found.low, found.high) == pytest.approx((5 - math.hypot(5.9, 2), 7.0))


def test_two_seeds_by_hand() -> None:
    # The mean is 0.9, a seed 2.2 beside it; t of one degree of freedom is tan(0.475 pi).
    margin = seed_margin([20.4, 24.8], [21.7, 21.7], paired=True, is_one_network=False)
    assert margin.seeds == pytest.approx((-1.3, 3.1))
    deviation = math.sqrt(2 * 2.2**2)
    assert margin.half_width == pytest.approx(
        math.tan(0.475 * math.pi) * deviation / math.sqrt(2), rel=1e-9
    )


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=6))
def test_paired_seeds_alone_give_the_paired_t_test(changes: list[float]) -> None:
    base = [30.0 + index for index in range(len(changes))]
    own = [a + b for a, b in zip(base, changes, strict=True)]
    margin = seed_margin(own, base, paired=True, is_one_network=False)
    mean = float(np.mean(np.subtract(own, base)))
    found = interval_of(mean, np.full(10, mean), margin)
    if np.ptp(changes) < 1e-6:  # The library divides by zero.
        return
    expected = stats.ttest_rel(own, base).confidence_interval(0.95)
    assert found.low == pytest.approx(float(expected.low), rel=1e-6, abs=1e-6)
    assert found.high == pytest.approx(float(expected.high), rel=1e-6, abs=1e-6)


def test_unequal_numbers_of_seeds_add_their_margins() -> None:
    own, base = [10.0, 12.0, 17.0], [5.0, 6.0]
    margin = seed_margin(own, base, paired=False, is_one_network=False)
    widths = [
        stats.t.ppf(0.975, len(v) - 1) * np.std(v, ddof=1) / math.sqrt(len(v)) for v in (own, base)
    ]
    assert margin.half_width == pytest.approx(math.hypot(*widths))
    assert margin.is_known and not margin.seeds


def test_a_teacher_is_one_network_and_a_student_is_not() -> None:
    base = [5.0, 6.0, 9.0]
    teacher = seed_margin([20.0], base, paired=False, is_one_network=True)
    alone = stats.t.ppf(0.975, 2) * np.std(base, ddof=1) / math.sqrt(3)
    assert teacher.is_known and teacher.half_width == pytest.approx(alone)
    assert not seed_margin([20.0], base, paired=False, is_one_network=False).is_known
    assert not seed_margin([20.0], [5.0], paired=True, is_one_network=False).is_known


@pytest.mark.parametrize(
    ("low", "high", "seeds", "is_clear"),
    [
        (0.1, 2.0, (), True),
        (-2.0, -0.1, (-1.0, -1.2), True),
        (0.0, 2.0, (), False),
        (-1.0, 1.0, (), False),
        # However narrow: the seeds disagree in sign.
        (0.1, 2.0, (-0.1, 1.0, 1.2, 1.1, 1.0, 0.9), False),
        (0.1, 2.0, (0.0, 1.0), True),
        (math.nan, math.nan, (), False),
    ],
)
def test_what_is_clear(low: float, high: float, seeds: tuple[float, ...], is_clear: bool) -> None:
    assert Estimate(1.0, low, high, seeds).is_clear is is_clear


def test_undefined_figures_have_no_interval() -> None:
    assert not interval_of(math.nan, np.full(5, np.nan), SeedMargin()).has_interval
    margin = seed_margin([math.nan] * 2, [math.nan] * 2, paired=True, is_one_network=False)
    assert not interval_of(math.nan, np.full(5, np.nan), margin).has_interval


def test_it_holds_the_truth_as_often_as_it_says() -> None:
    """Means over images of differences that images and seeds move, both with noise of their own."""
    generator = np.random.default_rng(0)
    images, trials, truth = 100, 400, 0.5
    for seeds in (2, 3, 5):
        held = narrow = 0
        for _ in range(trials):
            of_images = generator.normal(0, 4.0, images)
            of_seeds = generator.normal(truth, 0.6, seeds)
            values = of_images + of_seeds[:, None] + generator.normal(0, 2.0, (seeds, images))
            drawn = generator.integers(0, images, (200, images))
            draws = values.mean(0)[drawn].mean(1)
            changes = list(map(float, values.mean(1)))
            margin = seed_margin(changes, [0.0] * seeds, paired=True, is_one_network=False)
            found = interval_of(float(values.mean()), draws, margin)
            held += found.low <= truth <= found.high
            alone = interval_of(float(values.mean()), draws, SeedMargin())
            narrow += alone.low <= truth <= alone.high
        assert held / trials >= 0.93
        # Over images alone it is too narrow.
        assert narrow / trials < 0.92
