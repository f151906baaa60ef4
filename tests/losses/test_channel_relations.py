"""Relations between channels, and what the teacher's map says of a Gaussian, against loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mmkd import FeatureDistiller
from mmkd.losses import FSPLoss, ICKDLoss, NSTLoss, VIDLoss
from mmkd.losses.vid import gaussian_surprise

Map = list[list[float]]


def sides(seed: int, widths: tuple[int, int] = (3, 3)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (
        torch.randn(2, width, 2, 3, generator=generator, dtype=torch.float64) for width in widths
    )
    return student, teacher


def channels(feature: Tensor) -> Map:
    return [channel.flatten().tolist() for channel in feature]


def dot(x: list[float], y: list[float]) -> float:
    return sum(a * b for a, b in zip(x, y, strict=True))


def unit(x: list[float]) -> list[float]:
    return [a / math.sqrt(dot(x, x)) for a in x]


@given(seed=st.integers(0, 2**16))
def test_nst_against_loops(seed: int) -> None:
    student, teacher = sides(seed, (3, 5))

    def kernel(x: Map, y: Map) -> float:
        return sum(dot(unit(a), unit(b)) ** 2 for a in x for b in y) / len(x) / len(y)

    total = 0.0
    for ours, theirs in zip(map(channels, student), map(channels, teacher), strict=True):
        total += kernel(ours, ours) + kernel(theirs, theirs) - 2 * kernel(ours, theirs)
    assert NSTLoss()(student, teacher).item() == pytest.approx(total / 2, rel=1e-9)


def test_nst_by_hand() -> None:
    # Two cells: a channel at the first against one at the second, each with kernel 1 to itself.
    student = torch.tensor([4.0, 0.0]).reshape(1, 1, 1, 2)
    assert NSTLoss()(student, student.flip(3)).item() == pytest.approx(2)
    # Sets of patterns have no order and no number.
    both = torch.cat([student, student.flip(3)], dim=1)
    assert NSTLoss()(both, both.repeat(1, 2, 1, 1).flip(1)).item() == pytest.approx(0)


@given(seed=st.integers(0, 2**16))
def test_ickd_against_loops(seed: int) -> None:
    student, teacher = sides(seed)
    total = 0.0
    for ours, theirs in zip(map(channels, student), map(channels, teacher), strict=True):
        for i in range(3):
            rows = [unit([dot(x[i], other) for other in x]) for x in (ours, theirs)]
            total += sum((a - b) ** 2 for a, b in zip(*rows, strict=True))
    assert ICKDLoss()(student, teacher).item() == pytest.approx(total / 2 / 3, rel=1e-9)


def test_ickd_by_hand() -> None:
    # Rows (1, 0) and (0, 1) of orthogonal channels, twice (1, 3) / sqrt(10) of (1, 0) and (3, 0).
    student = torch.eye(2).reshape(1, 2, 1, 2)
    teacher = torch.tensor([[1.0, 0.0], [3.0, 0.0]]).reshape(1, 2, 1, 2)
    assert ICKDLoss()(student, teacher).item() == pytest.approx(2 - 4 / math.sqrt(10))
    assert ICKDLoss()(7 * student, student).item() == pytest.approx(0)


@given(seed=st.integers(0, 2**16))
def test_fsp_against_loops(seed: int) -> None:
    first, second = sides(seed), sides(seed + 1)
    # The finer of two levels is pooled to the grid of the coarser one.
    finer = [torch.nn.functional.interpolate(x, scale_factor=2) for x in first]
    total = 0.0
    for image in range(2):
        flows = []
        for side in (0, 1):
            x, y = channels(first[side][image]), channels(second[side][image])
            flows.append([[dot(a, b) / 6 for b in y] for a in x])
        total += sum(
            (a - b) ** 2 for rows in zip(*flows, strict=True) for a, b in zip(*rows, strict=True)
        )
    value = FSPLoss()([finer[0], second[0]], [finer[1], second[1]])
    assert value.item() == pytest.approx(total / 2 / 9, rel=1e-9)


def test_fsp_by_hand_and_its_mistakes() -> None:
    # Flows 2 * 3 and 1 * 1, of a single cell; then the same once more.
    ones, twos, threes = (torch.full((1, 1, 1, 1), value) for value in (1.0, 2.0, 3.0))
    assert FSPLoss()([twos, threes], [ones, ones]).item() == pytest.approx(25)
    assert FSPLoss()([twos, threes, twos], [ones] * 3).item() == pytest.approx(50)
    with pytest.raises(ValueError, match="a flow leads from one level to another, got 1 level"):
        FSPLoss()([ones], [ones])


def test_fsp_projects_where_widths_differ() -> None:
    distiller = FeatureDistiller([2, 4], [3, 4], loss=dict(type="mmkd.FSPLoss"))
    assert [len(list(each.parameters())) for each in distiller.projector] == [2, 0]


@given(seed=st.integers(0, 2**16), variance=st.sampled_from([0.1, 5.0, 1000.0]))
def test_vid_against_loops(seed: int, variance: float) -> None:
    """Three 1x1 convolutions with ReLU between, and one variance for each of the channels."""
    student, teacher = sides(seed, (2, 3))
    loss = VIDLoss(2, 3, variance).double()
    loss.spread.data += torch.tensor([0.0, 1.0, -1.0])
    weights = [p[:, :, 0, 0].tolist() for p in loss.mean.parameters()]
    assert [(len(w), len(w[0])) for w in weights] == [(3, 2), (3, 3), (3, 3)]
    spreads = [max(a, 0) + math.log(1 + math.exp(-abs(a))) + 1e-5 for a in loss.spread.tolist()]
    assert spreads[0] == pytest.approx(variance, rel=1e-6)
    total = 0.0
    for image in range(2):
        for y in range(2):
            for x in range(3):
                values = student[image, :, y, x].tolist()
                for index, weight in enumerate(weights):
                    values = [dot(row, values) for row in weight]
                    if index < 2:
                        values = [max(0.0, v) for v in values]
                for c, v in enumerate(spreads):
                    difference = float(teacher[image, c, y, x]) - values[c]
                    total += (math.log(v) + difference**2 / v) / 2
    assert loss(student, teacher).item() == pytest.approx(total / teacher.numel(), rel=1e-9)


def test_vid_by_hand() -> None:
    # log 4 / 2 + 2^2 / 4 / 2.
    value = gaussian_surprise(
        torch.zeros(1, 1, 1, 1), torch.tensor([4.0]), torch.full((1, 1, 1, 1), 2.0)
    )
    assert value.item() == pytest.approx(math.log(2) + 0.5)
    with pytest.raises(ValueError, match="variance must be above"):
        VIDLoss(2, 2, variance=0.0)
