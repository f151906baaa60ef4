"""Relations between images against loops over pairs and triples in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mmkd import FeatureDistiller
from mmkd.losses import CCLoss, Loss, PKTLoss, RKDLoss, SPLoss

Rows = list[list[float]]


def dot(x: Sequence[float], y: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(x, y, strict=True))


def unit(x: Sequence[float]) -> list[float]:
    length = math.sqrt(dot(x, x))
    return [a / length for a in x] if length else list(x)


def minus(x: Sequence[float], y: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(x, y, strict=True)]


def huber(x: float) -> float:
    return x * x / 2 if abs(x) < 1 else abs(x) - 0.5


def sp(student: Rows, teacher: Rows) -> float:
    sides = [[unit([dot(x, y) for y in rows]) for x in rows] for rows in (student, teacher)]
    n = len(student)
    return sum((sides[0][i][j] - sides[1][i][j]) ** 2 for i in range(n) for j in range(n)) / n**2


def cc(student: Rows, teacher: Rows) -> float:
    def kernel(x: list[float], y: list[float]) -> float:
        cosine = dot(unit(x), unit(y))
        return math.exp(-0.8) * (1 + 0.8 * cosine + 0.8**2 / 2 * cosine**2)

    n = len(student)
    return (
        sum(
            (kernel(student[i], student[j]) - kernel(teacher[i], teacher[j])) ** 2
            for i in range(n)
            for j in range(n)
        )
        / n**2
    )


def rkd(student: Rows, teacher: Rows) -> float:
    n = len(student)

    def distances(rows: Rows) -> list[float]:
        found = [math.dist(x, y) for x in rows for y in rows]
        mean = sum(found) / sum(d > 0 for d in found)
        return [d / mean for d in found]

    def angles(rows: Rows) -> list[float]:
        return [
            dot(unit(minus(rows[j], rows[i])), unit(minus(rows[k], rows[i])))
            for i in range(n)
            for j in range(n)
            for k in range(n)
        ]

    by_distance, by_angle = (
        [huber(a - b) for a, b in zip(of(student), of(teacher), strict=True)]
        for of in (distances, angles)
    )
    return 25 * sum(by_distance) / n**2 + 50 * sum(by_angle) / n**3


def pkt(student: Rows, teacher: Rows) -> float:
    def neighbours(rows: Rows) -> Rows:
        similar = [[(1 + dot(unit(x), unit(y))) / 2 for y in rows] for x in rows]
        return [[value / sum(row) for value in row] for row in similar]

    ours, theirs = neighbours(student), neighbours(teacher)
    n = len(student)
    return (
        sum(
            theirs[i][j] * math.log((theirs[i][j] + 1e-7) / (ours[i][j] + 1e-7))
            for i in range(n)
            for j in range(n)
        )
        / n**2
    )


REFERENCES: dict[type[Loss], Callable[[Rows, Rows], float]] = {
    SPLoss: sp,
    CCLoss: cc,
    RKDLoss: rkd,
    PKTLoss: pkt,
}
every_relation = pytest.mark.parametrize("cls", REFERENCES)


def sides(seed: int, images: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(images, 3, generator=generator, dtype=torch.float64)
    return student, torch.randn(images, 5, generator=generator, dtype=torch.float64)


@every_relation
@given(seed=st.integers(0, 2**16), images=st.integers(2, 5))
def test_against_loops(cls: type[Loss], seed: int, images: int) -> None:
    student, teacher = sides(seed, images)
    expected = REFERENCES[cls](student.tolist(), teacher.tolist())
    assert cls()(student, teacher).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@every_relation
@given(seed=st.integers(0, 2**16), scale=st.sampled_from([1e-3, 0.5, 300.0]))
def test_scale_and_rotation_change_nothing(cls: type[Loss], seed: int, scale: float) -> None:
    student, teacher = sides(seed)
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q
    value = cls()(student, teacher)
    torch.testing.assert_close(cls()(scale * student @ rotation, teacher), value)


@every_relation
def test_one_image_has_no_relations(cls: type[Loss]) -> None:
    student, teacher = (x.requires_grad_() for x in sides(0, images=1))
    value = cls()(student, teacher)
    value.backward()
    assert value.item() == pytest.approx(0)
    assert student.grad is not None and student.grad.abs().max() < 1e-6


@every_relation
def test_two_equal_images_have_finite_gradients(cls: type[Loss]) -> None:
    student, teacher = sides(0)
    student[1] = student[0]
    cls()(student.requires_grad_(), teacher).backward()
    assert student.grad is not None and torch.isfinite(student.grad).all()


def test_similarities_by_hand() -> None:
    # Orthogonal images against equal ones: rows (1, 0) against (1, 1) / sqrt(2).
    student, teacher = torch.eye(2), torch.ones(2, 3)
    half = 0.5**0.5
    assert SPLoss()(student, teacher).item() == pytest.approx(((1 - half) ** 2 + half**2) / 2)
    # e^-0.8 (0.8 + 0.32) on the two pairs that differ.
    assert CCLoss()(student, teacher).item() == pytest.approx((math.exp(-0.8) * 1.12) ** 2 / 2)
    # (2/3, 1/3) against (1/2, 1/2).
    expected = (0.5 * math.log(0.5 / (2 / 3)) + 0.5 * math.log(0.5 / (1 / 3))) / 2
    assert PKTLoss()(student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_distances_and_angles_by_hand() -> None:
    # Points 0, 1, 3 against 0, 1, 2 on a line; the mean distances are 2 and 4 / 3.
    student, teacher = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0.0], [1.0], [2.0]])
    differences = [1 / 2 - 3 / 4, 3 / 2 - 3 / 2, 2 / 2 - 3 / 4]
    expected = sum(2 * d**2 / 2 for d in differences) / 9
    assert RKDLoss(1.0, 0.0)(student, teacher).item() == pytest.approx(expected)
    assert RKDLoss(0.0, 1.0)(student, teacher).item() == pytest.approx(0)
    # A right angle at the first of three points against a straight one there.
    student = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    teacher = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    # Cosines 0 against -1 at the first, half a right angle's against 1 at the others; two orders.
    expected = 2 * (1 / 2 + 2 * (1 - 0.5**0.5) ** 2 / 2) / 27
    assert RKDLoss(0.0, 1.0)(student, teacher).item() == pytest.approx(expected)


def test_a_term_of_relations_needs_no_projector() -> None:
    """Either side comes in its own width; pooled, or with SP all entries of a map."""
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(4, 3, 4, 4, generator=generator)
    teacher = torch.randn(4, 5, 2, 2, generator=generator)
    distiller = FeatureDistiller(3, 5, loss=dict(type="mmkd.RKDLoss"))
    assert not list(distiller.parameters())
    pooled = [x.mean(dim=(2, 3)) for x in (student, teacher)]
    torch.testing.assert_close(distiller(student, teacher), RKDLoss()(*pooled))
    flat = FeatureDistiller(3, 5, loss=dict(type="mmkd.SPLoss"))
    torch.testing.assert_close(
        flat(student, teacher), SPLoss()(student.flatten(1), teacher.flatten(1))
    )
    with pytest.raises(ValueError, match=r"RKDLoss compares images.*use global or flat"):
        FeatureDistiller(3, 5, loss=dict(type="mmkd.RKDLoss"), view="dense")


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="gamma must be above 0 and finite, got 0"):
        CCLoss(gamma=0)
    with pytest.raises(ValueError, match="order must be a positive integer, got 0"):
        CCLoss(order=0)
    with pytest.raises(ValueError, match="order must be a positive integer, got True"):
        CCLoss(order=True)
    for distance in (math.inf, "2", True):
        with pytest.raises(ValueError, match="distance must be 0 or more and finite, got"):
            RKDLoss(distance=distance)
    with pytest.raises(ValueError, match="angle must be 0 or more and finite, got -1"):
        RKDLoss(angle=-1)
