"""DIST, spherical and normalised KD, and standardised logits, against loops in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mmkd import FeatureDistiller
from mmkd.losses import DISTLoss, KDLoss, NKDLoss, SphericalKDLoss
from mmkd.targets import Targets


def sides(seed: int, images: int = 4, classes: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, images, classes, generator=generator, dtype=torch.float64)
    return 3 * student, 3 * teacher


def softmax(row: list[float], temperature: float = 1.0) -> list[float]:
    powers = [math.exp((x - max(row)) / temperature) for x in row]
    return [power / sum(powers) for power in powers]


def divergence(student: list[float], teacher: list[float], temperature: float) -> float:
    p, q = softmax(student, temperature), softmax(teacher, temperature)
    return sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))


def pearson(x: list[float], y: list[float]) -> float:
    means = sum(x) / len(x), sum(y) / len(y)
    a, b = [v - means[0] for v in x], [v - means[1] for v in y]
    product = sum(u * v for u, v in zip(a, b, strict=True))
    return product / (math.sqrt(sum(u * u for u in a) * sum(v * v for v in b)) + 1e-8)


@given(seed=st.integers(0, 2**16), temperature=st.sampled_from([1.0, 4.0]))
def test_dist_against_loops(seed: int, temperature: float) -> None:
    logits = sides(seed)
    ours, theirs = ([softmax(row, temperature) for row in x.tolist()] for x in logits)
    inter = [1 - pearson(a, b) for a, b in zip(ours, theirs, strict=True)]
    columns = zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True)
    intra = [1 - pearson(list(a), list(b)) for a, b in columns]
    expected = temperature**2 * (2 * sum(inter) / len(inter) + 3 * sum(intra) / len(intra))
    value = DISTLoss(2.0, 3.0, temperature)(*logits).item()
    assert value == pytest.approx(expected, rel=1e-9)


def test_dist_of_classes_that_no_image_is_of() -> None:
    # Columns of probabilities of 1e-7 or less are shorter than the constant, and count for little.
    logits = [x.double() for x in sides(0)]
    rare = [torch.cat([x[:, :2] + 40, x[:, 2:]], dim=1).requires_grad_() for x in logits]
    value = DISTLoss(0.0, 1.0)(*rare)
    classes = rare[0].shape[1]
    ours, theirs = (x.detach().softmax(dim=1).T.tolist() for x in rare)
    counted = sum(1 - pearson(a, b) for a, b in zip(ours[:2], theirs[:2], strict=True))
    assert value.item() == pytest.approx((counted + classes - 2) / classes, abs=1e-6)
    value.backward()
    assert rare[0].grad is not None and rare[0].grad.abs().max() < 1


def test_dist_by_hand() -> None:
    # Probabilities (3/4, 1/4) and (1/4, 3/4), and the opposite: every correlation is -1.
    student = torch.tensor([[3.0, 1.0], [1.0, 3.0]]).log()
    assert DISTLoss(1.0, 0.0, 1.0)(student, student.flip(0)).item() == pytest.approx(2)
    assert DISTLoss(0.0, 1.0, 1.0)(student, student.flip(0)).item() == pytest.approx(2)
    assert DISTLoss()(student, student).item() == pytest.approx(0, abs=1e-5)


@given(seed=st.integers(0, 2**16), scale=st.sampled_from([0.1, 7.0]))
def test_dist_sees_relations_alone(seed: int, scale: float) -> None:
    """A linear change of the probabilities is none of the correlation."""
    student, teacher = (x.softmax(dim=1) for x in sides(seed))
    mixed = (0.5 * student + 0.1).log()
    value, same = (DISTLoss(1.0, 0.0, 1.0)(x, teacher.log()) for x in (student.log(), mixed))
    torch.testing.assert_close(same, value)


@given(seed=st.integers(0, 2**16), temperature=st.sampled_from([1.0, 4.0]))
def test_spherical_kd_against_loops(seed: int, temperature: float) -> None:
    student, teacher = sides(seed)

    def centred(x: Tensor) -> list[list[float]]:
        return [[v - sum(row) / len(row) for v in row] for row in x.tolist()]

    ours, theirs = centred(student), centred(teacher)
    norm = sum(math.hypot(*row) for row in theirs) / len(theirs)
    total = 0.0
    for a, b in zip(ours, theirs, strict=True):
        rows = [[norm * v / math.hypot(*row) for v in row] for row in (a, b)]
        total += divergence(*rows, temperature)
    value = SphericalKDLoss(temperature)(student, teacher).item()
    assert value == pytest.approx(temperature**2 * total / len(ours), rel=1e-9)


def test_spherical_kd_by_hand() -> None:
    # The teacher's odds are 1 to 4; the student's, at the teacher's norm, are 4 to 1.
    student, teacher = torch.tensor([[5.0, 1.0]]), torch.tensor([[0.0, math.log(4)]])
    value = SphericalKDLoss(temperature=1.0)(student, teacher).item()
    assert value == pytest.approx(0.6 * math.log(4))


def test_spherical_kd_forgives_the_students_scale() -> None:
    student, teacher = sides(0)
    value = SphericalKDLoss()(student, teacher)
    torch.testing.assert_close(SphericalKDLoss()(5 * student + 2, teacher), value)
    assert SphericalKDLoss()(3 * teacher, teacher).item() == pytest.approx(0, abs=0.5)
    assert KDLoss()(3 * teacher, teacher) > 1


@given(seed=st.integers(0, 2**16), temperature=st.sampled_from([1.0, 4.0]))
def test_nkd_against_loops(seed: int, temperature: float) -> None:
    student, teacher = sides(seed)
    labels = torch.arange(4) % 3
    total = 0.0
    for ours, theirs, label in zip(
        student.tolist(), teacher.tolist(), labels.tolist(), strict=True
    ):
        total -= softmax(theirs)[label] * math.log(softmax(ours)[label])
        rest = [[v for i, v in enumerate(row) if i != label] for row in (ours, theirs)]
        p, q = (softmax(row, temperature) for row in rest)
        total -= 1.5 * temperature**2 * sum(b * math.log(a) for a, b in zip(p, q, strict=True))
    value = NKDLoss(1.5, temperature)(student, teacher, targets=Targets((8, 8), labels=labels))
    assert value.item() == pytest.approx(total / 4, rel=1e-9)


def test_nkd_by_hand() -> None:
    # Of (1/2, 1/4, 1/4), class 0: 1/2 log 2, and log 2 of the two others.
    logits = torch.tensor([[2.0, 1.0, 1.0]]).log()
    targets = Targets((8, 8), labels=torch.tensor([0]))
    value = NKDLoss(gamma=1.5)(logits, logits, targets=targets).item()
    assert value == pytest.approx((0.5 + 1.5) * math.log(2))


def test_nkd_needs_one_class_an_image() -> None:
    mixed = Targets((8, 8), labels=torch.full((1, 3), 1 / 3))
    with pytest.raises(ValueError, match="NKDLoss needs one class an image"):
        NKDLoss()(torch.zeros(1, 3), torch.zeros(1, 3), targets=mixed)
    with pytest.raises(ValueError, match="gamma must be 0 or more"):
        NKDLoss(gamma=-1)
    with pytest.raises(ValueError, match="beta must be 0 or more"):
        DISTLoss(beta=-1)


def standardised(classes: int) -> FeatureDistiller:
    return FeatureDistiller(
        classes,
        classes,
        loss=dict(type="mmkd.KDLoss", temperature=2.0),
        normalizer=dict(type="mmkd.LayerNormalizer", eps=1e-12),
    )


@given(seed=st.integers(0, 2**16))
def test_standardised_logits(seed: int) -> None:
    """Sun et al., *Logit Standardization in Knowledge Distillation* (CVPR 2024): each image's
    logits with mean 0 and variance 1, which is a layer normalisation."""
    student, teacher = sides(seed)
    expected = 0.0
    for ours, theirs in zip(student.tolist(), teacher.tolist(), strict=True):
        rows = []
        for row in (ours, theirs):
            mean = sum(row) / len(row)
            deviation = math.sqrt(sum((v - mean) ** 2 for v in row) / len(row))
            rows.append([(v - mean) / deviation for v in row])
        expected += 4 * divergence(*rows, 2.0) / len(student)
    assert standardised(5)(student, teacher).item() == pytest.approx(expected, rel=1e-6)


def test_standardised_logits_by_hand() -> None:
    # 1 and -1 of the student, -1 and 1 of the teacher; at T = 2 odds of e and 1 / e.
    student, teacher = torch.tensor([[3.0, 1.0]]), torch.tensor([[0.0, 5.0]])
    value = standardised(2)(student, teacher).item()
    assert value == pytest.approx(4 * math.tanh(0.5))
