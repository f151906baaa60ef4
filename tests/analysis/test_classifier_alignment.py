"""Classifier distance and correlation against numpy, other formulas and numbers by hand."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mmkd.analysis import classifier_distance, pearson_correlation


def _weights(seed: int = 0, classes: int = 7, channels: int = 5) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(classes, channels, generator=generator) for _ in range(2)]


# Distance


def test_distance_by_hand() -> None:
    student = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
    teacher = torch.tensor([[2.0, 4.0], [-2.0, 3.0]])  # Off by 1, 2, -2, 4.
    assert classifier_distance(student, teacher) == 5.0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_distance_in_double_precision(dtype: torch.dtype) -> None:
    student, teacher = (weight.to(dtype) for weight in _weights())
    difference = student.double().numpy() - teacher.double().numpy()
    expected = math.sqrt(math.fsum((difference**2).ravel().tolist()))
    assert classifier_distance(student, teacher) == pytest.approx(expected, rel=1e-14)


def test_distance_of_large_half_weights() -> None:
    """Neither their difference nor its square is a float16."""
    weight = torch.full((2, 2), 6e4, dtype=torch.float16)
    assert classifier_distance(weight, -weight) == pytest.approx(4 * float(weight[0, 0]))


def test_distance_is_a_metric_of_entries() -> None:
    student, teacher = _weights()
    assert classifier_distance(student, student) == 0.0
    assert classifier_distance(student, teacher) == classifier_distance(teacher, student)
    assert classifier_distance(3 * student, 3 * teacher) == pytest.approx(
        3 * classifier_distance(student, teacher)
    )
    order = torch.arange(5).flip(0)
    both = classifier_distance(student[:, order], teacher[:, order])
    assert both == pytest.approx(classifier_distance(student, teacher))
    assert classifier_distance(student[:, order], student) > 1.0


def test_distance_of_parameters_leaves_no_trace() -> None:
    layer, (teacher, _) = nn.Linear(5, 7), _weights()
    before = layer.weight.detach().clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        distance = classifier_distance(layer.weight, teacher)
    assert isinstance(distance, float) and distance > 0
    assert torch.equal(layer.weight, before) and layer.weight.grad is None


@pytest.mark.parametrize(
    ("student", "teacher"), [((3, 4), (3, 5)), ((3, 4), (2, 4)), ((4,), (4,)), ((3, 4, 1), (3, 4))]
)
def test_shapes_that_differ(student: tuple, teacher: tuple) -> None:
    with pytest.raises(ValueError) as raised:
        classifier_distance(torch.zeros(student), torch.zeros(teacher))
    text = str(raised.value)
    assert f"student's {list(student)}" in text and f"teacher's {list(teacher)}" in text


# Correlation


def test_correlation_by_hand() -> None:
    # Deviations -1, 0, 1 and -2, 1, 1: 3 / sqrt(2 * 6).
    assert pearson_correlation([1, 2, 3], [0, 3, 3]) == pytest.approx(3 / math.sqrt(12), rel=1e-12)


_series = st.lists(st.floats(-100, 100).map(lambda x: round(x, 3)), min_size=3, max_size=20)


@given(x=_series, seed=st.integers(0, 100))
def test_correlation_against_numpy(x: list[float], seed: int) -> None:
    y = np.random.default_rng(seed).normal(size=len(x)).tolist()
    found = pearson_correlation(x, y)
    if min(x) == max(x):
        assert math.isnan(found)
        return
    assert found == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-9)
    assert -1 <= found <= 1
    assert pearson_correlation(y, x) == pytest.approx(found, abs=1e-12)
    assert pearson_correlation([-2 * v + 7 for v in x], y) == pytest.approx(-found, abs=1e-9)


def test_correlation_on_a_line() -> None:
    x = [0.1, 0.5, 0.7, 2.0]
    assert pearson_correlation(x, [3 * v - 1 for v in x]) == pytest.approx(1, abs=1e-12)
    assert pearson_correlation(x, [1 - 3 * v for v in x]) == pytest.approx(-1, abs=1e-12)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([], []),
        ([1.0], [2.0]),
        ([1.0, 2.0], [2.0, 5.0]),
        ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]),
        ([1.0, 2.0, 3.0], [0.1, 0.1, 0.1]),
        ([1.0, 2.0, math.nan], [1.0, 2.0, 3.0]),
        ([1.0, 2.0, 3.0], [1.0, math.inf, 3.0]),
    ],
)
def test_where_it_says_nothing(x: list[float], y: list[float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(pearson_correlation(x, y))


def test_a_nearly_constant_series_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = pearson_correlation([1.0, 1.0 + 2e-16, 1.0 + 4e-16], [1.0, 2.0, 3.0])
    assert math.isnan(found) or -1 <= found <= 1


def test_lengths_that_differ() -> None:
    with pytest.raises(ValueError, match="one length, got 3 and 2 values"):
        pearson_correlation([1, 2, 3], [1, 2])
