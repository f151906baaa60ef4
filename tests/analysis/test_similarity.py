"""Likeness of features and predictions, against brute force, and where it must not change."""

from __future__ import annotations

import math
from itertools import permutations
from statistics import fmean

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from torch import Tensor, nn

from mmkd.analysis import (
    agreement,
    between_class_cosine,
    cosine_by_place,
    explained_variance,
    linear_cka,
    translational_equivariance,
)

seeds = st.integers(0, 2**16)


def drawn(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# CKA and explained variance ---------------------------------------------------------------


def hsic(x: Tensor, y: Tensor) -> float:
    """Over all that four different samples say of dependence."""
    k, m = x @ x.T, y @ y.T
    found = [
        float(k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]))
        for i, j, q, r in permutations(range(len(x)), 4)
    ]
    return fmean(found)


@settings(max_examples=20)
@given(seed=seeds, channels=st.sampled_from([2, 9]))
def test_cka_against_all_fours(seed: int, channels: int) -> None:
    """Whichever side of the matrices is the smaller, and wherever the samples lie."""
    x, y = drawn(seed, 6, channels), drawn(seed + 1, 6, 4)
    own = hsic(x, x) * hsic(y, y)
    if own <= 0:
        assert math.isnan(linear_cka(x, y))
        return
    expected = hsic(x, y) / math.sqrt(own)
    assert linear_cka(x, y) == pytest.approx(expected, rel=1e-7, abs=1e-9)
    assert linear_cka(y, x) == pytest.approx(expected, rel=1e-7, abs=1e-9)
    turned = torch.linalg.qr(drawn(seed + 2, channels, channels))[0]
    assert linear_cka(7 * x @ turned - 2, y + 3) == pytest.approx(expected, rel=1e-7, abs=1e-9)


def test_cka_at_its_ends() -> None:
    x = drawn(0, 9, 4)
    assert linear_cka(x, -x) == pytest.approx(1)
    assert math.isnan(linear_cka(torch.ones(4, 2), drawn(1, 4, 2)))
    with pytest.raises(ValueError, match="as many samples on either side, got 5 and 9"):
        linear_cka(x[:5], x)
    with pytest.raises(ValueError, match="4 samples or more, got 3"):
        linear_cka(x[:3], x[:3])


def test_few_samples_of_noise_are_told_as_such() -> None:
    """Where the plain estimates of CKA and of explained variance come to one half and more."""
    pairs = [(drawn(seed, 16, 12), drawn(seed + 50, 16, 12)) for seed in range(50)]
    assert abs(fmean(linear_cka(*pair) for pair in pairs)) < 0.1
    assert abs(fmean(explained_variance(*pair) for pair in pairs)) < 0.1
    assert math.isnan(explained_variance(drawn(0, 13, 12), drawn(1, 13, 12)))


@given(seed=seeds)
def test_explained_variance_against_a_regression(seed: int) -> None:
    x, y = drawn(seed, 15, 3), drawn(seed + 1, 15, 2) + 4
    model = LinearRegression().fit(x, y)
    residual = y.numpy() - model.predict(x)
    # Unbiased variances: of 15 samples one mean is taken away, and three directions.
    left = (residual**2).sum() / 11
    expected = 1 - left / (((y - y.mean(dim=0)) ** 2).sum() / 14)
    assert explained_variance(x, y) == pytest.approx(float(expected), rel=1e-9, abs=1e-12)
    # Any other coordinates of the student's tell as much, and a channel twice over no more.
    again = torch.cat([x, x[:, :1]], dim=1) @ (drawn(seed + 2, 4, 4) + 3 * torch.eye(4))
    assert explained_variance(again, y) == pytest.approx(float(expected), rel=1e-6, abs=1e-9)
    assert explained_variance(x, x @ drawn(seed, 3, 5)) == pytest.approx(1)


def test_explained_variance_of_what_does_not_vary() -> None:
    x = drawn(0, 6, 2)
    assert math.isnan(explained_variance(x, torch.ones(6, 2)))
    assert explained_variance(torch.ones(6, 2), x) == pytest.approx(0)


# Classes and predictions ------------------------------------------------------------------


@given(seed=seeds)
def test_between_classes_against_loops(seed: int) -> None:
    features, labels = drawn(seed, 7, 3), torch.tensor([0, 0, 1, 2, 1, 0, 2])
    found = []
    for i in range(7):
        for j in range(7):
            if labels[i] != labels[j]:
                a, b = features[i].tolist(), features[j].tolist()
                product = sum(p * q for p, q in zip(a, b, strict=True))
                found.append(product / math.hypot(*a) / math.hypot(*b))
    assert between_class_cosine(features, labels) == pytest.approx(sum(found) / len(found))


def test_between_classes_by_hand() -> None:
    features = torch.tensor([[2.0, 0.0], [0.0, 5.0], [0.0, 0.0], [3.0, 0.0]])
    # Right angles with the second, a zero, and (of another class) the same direction.
    assert between_class_cosine(features, torch.tensor([0, 1, 2, 3])) == pytest.approx(1 / 6)
    assert math.isnan(between_class_cosine(features, torch.zeros(4)))
    with pytest.raises(ValueError, match="with a label each"):
        between_class_cosine(features, torch.zeros(3))


def test_agreement_by_hand() -> None:
    student = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0], [5.0, 4.0]])
    teacher = torch.tensor([[0.0, 9.0], [0.0, 1.0], [0.0, 1.0], [2.0, 1.0]])
    assert agreement(student, teacher) == 0.75
    with pytest.raises(ValueError, match=r"logits \[M, K\] of one shape"):
        agreement(student, teacher[:2])


# Where ------------------------------------------------------------------------------------


def test_a_convolution_lets_translation_pass_and_a_position_does_not() -> None:
    x = drawn(0, 2, 3, 5, 4)

    def pointwise(x: Tensor) -> Tensor:
        return x.tanh() * 2

    def circular(x: Tensor) -> Tensor:
        return x + 0.5 * x.roll(1, dims=2)

    moved = x.roll((1, 2), dims=(1, 2))
    for layer in (pointwise, circular):
        assert translational_equivariance(layer(x), layer(moved), (1, 2)) < 1e-24
    # Rows have weights of their own: what came from the last one stands in the first.
    weights = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)[:, None, None]
    found = translational_equivariance(x * weights, x.roll(1, dims=1) * weights, (1, 0))
    rows = [(weights[row] - weights[row - 1]) * x[:, row - 1] for row in range(3)]
    assert found == pytest.approx(float(torch.stack(rows).square().mean()))


def test_in_units_of_the_variance() -> None:
    x, y = drawn(0, 500, 4, 4, 2), drawn(1, 500, 4, 4, 2)
    assert translational_equivariance(x, y, (1, 1), relative=True) == pytest.approx(2, abs=0.05)
    once = translational_equivariance(x, x, (1, 1), relative=True)
    # Neither scale nor offset of a network counts.
    scaled = translational_equivariance(9 * x + 5, 9 * x + 5, (1, 1), relative=True)
    assert scaled == pytest.approx(once)
    assert math.isnan(translational_equivariance(x * 0, x * 0, (1, 1), relative=True))


def test_self_attention_without_positions_lets_translation_pass() -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(4, 2, batch_first=True).double()

    def block(x: Tensor) -> Tensor:
        tokens = x.flatten(1, 2)
        return attention(tokens, tokens, tokens)[0].unflatten(1, (4, 4))

    x = drawn(1, 2, 4, 4, 4)
    moved = x.roll((2, 3), dims=(1, 2))
    assert translational_equivariance(block(x), block(moved), (2, 3)) < 1e-20
    positions = drawn(2, 4, 4, 4)
    assert translational_equivariance(block(x + positions), block(moved + positions), (2, 3)) > 1e-6


def test_outputs_of_other_shapes() -> None:
    for shapes in (((1, 2, 2, 3), (1, 2, 3, 3)), ((1, 4, 3), (1, 4, 3))):
        with pytest.raises(ValueError, match=r"two outputs \[N, rows, columns, C\] of one shape"):
            translational_equivariance(*map(torch.ones, shapes), (1, 1))


def test_cosines_by_place_by_hand() -> None:
    # Cells of 64 pixels. The student is right in column 0, opposite in the last, else across.
    teacher = torch.tensor([1.0, 0.0])[None, :, None, None].expand(1, 2, 4, 4)
    student = torch.zeros(1, 2, 4, 4)
    student[:, 1] = 1
    student[:, :, :, 0] = torch.tensor([1.0, 0.0])[None, :, None]
    student[:, :, :, 3] = torch.tensor([-1.0, 0.0])[None, :, None]
    boxes = [
        torch.tensor(
            [
                [10.0, 10.0, 30.0, 30.0],  # small, in cell (0, 0)
                [70.0, 200.0, 140.0, 250.0],  # medium, in cells (3, 1) and (3, 2)
                [130.0, 0.0, 256.0, 128.0],  # large, in rows 0 and 1 of columns 2 and 3
            ]
        )
    ]
    found = cosine_by_place(student, teacher, boxes, (256, 256))
    assert found.small == 1
    assert found.medium == pytest.approx(0)
    assert found.large == pytest.approx(-1 / 2)
    assert found.inside == pytest.approx((1 + 0 + 0 - 2) / 7)
    # Of the nine other cells: three right, two opposite.
    assert found.outside == pytest.approx((3 - 2) / 9)


def test_cosines_without_boxes() -> None:
    feature = drawn(0, 2, 3, 4, 4)
    found = cosine_by_place(feature, 3 * feature, [torch.zeros(0, 4)] * 2, (32, 32))
    assert found.outside == pytest.approx(1)
    assert all(map(math.isnan, (found.inside, found.small, found.medium, found.large)))
    with pytest.raises(ValueError, match="of one shape and the boxes of N images"):
        cosine_by_place(feature, feature[:1], [], (32, 32))
