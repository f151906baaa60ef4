"""Losses on what heads predict, against their definitions in plain numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mmkd import FeatureDistiller
from mmkd.losses import BinaryKDLoss, DKDLoss, KDLoss, LDLoss, ScoreWeightedL2Loss
from mmkd.losses.dkd import decoupled_kd
from mmkd.losses.ld import localization_distillation
from mmkd.projectors import IdentityProjector
from mmkd.targets import Boxes, Targets

seeds = st.integers(0, 2**16)
temperatures = st.sampled_from([1.0, 4.0, 10.0])


def pair(seed: int, *shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = 3 * torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return student, teacher


def softmax(values: list[float], temperature: float) -> list[float]:
    powers = [math.exp((v - max(values)) / temperature) for v in values]
    return [p / sum(powers) for p in powers]


def divergence(q: list[float], p: list[float]) -> float:
    return sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))


# Yes or no


@given(seed=seeds, temperature=temperatures)
def test_binary_kd_by_loops(seed: int, temperature: float) -> None:
    student, teacher = pair(seed, 3, 4)
    total = 0.0
    for s, t in zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True):
        p, q = (1 / (1 + math.exp(-v / temperature)) for v in (s, t))
        total += divergence([q, 1 - q], [p, 1 - p])
    found = BinaryKDLoss(temperature)(student, teacher).item()
    assert found == pytest.approx(temperature**2 * total / 12, rel=1e-8)


def test_binary_kd_by_hand() -> None:
    # Probabilities of 1/2 and 3/4: 3/4 log(3/2) + 1/4 log(1/2).
    student, teacher = torch.zeros(1, 1), torch.full((1, 1), math.log(3))
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert BinaryKDLoss()(student, teacher).item() == pytest.approx(expected)
    assert BinaryKDLoss()(teacher, teacher).item() == pytest.approx(0, abs=1e-7)


def test_binary_kd_of_certain_logits_is_finite() -> None:
    student = torch.full((2, 2), -6e4, requires_grad=True)
    value = BinaryKDLoss()(student, torch.full((2, 2), 6e4))
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(student.grad).all()


# Decoupled


@given(seed=seeds, temperature=temperatures, alpha=st.floats(0, 3), beta=st.floats(0, 9))
def test_dkd_by_loops(seed: int, temperature: float, alpha: float, beta: float) -> None:
    student, teacher = pair(seed, 3, 5)
    labels = torch.tensor([0, 4, 2])
    tckd = nckd = 0.0
    for s, t, label in zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True):
        p, q = softmax(s, temperature), softmax(t, temperature)
        tckd += divergence([q[label], 1 - q[label]], [p[label], 1 - p[label]])
        rest = ([v for i, v in enumerate(side) if i != label] for side in (s, t))
        p_rest, q_rest = (softmax(side, temperature) for side in rest)
        nckd += divergence(q_rest, p_rest)
    found = decoupled_kd(student, teacher, labels, alpha, beta, temperature).item()
    expected = temperature**2 * (alpha * tckd + beta * nckd) / 3
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(seed=seeds)
def test_kd_is_the_two_parts_with_the_teacher_s_doubt(seed: int) -> None:
    """Eq. (6): KL = TCKD + (1 - q_target) NCKD, of a single row."""
    student, teacher = pair(seed, 1, 6)
    label = torch.tensor([3])
    doubt = 1 - teacher.softmax(1)[0, 3].item()
    parts = decoupled_kd(student, teacher, label, 1.0, doubt, 1.0)
    assert parts.item() == pytest.approx(KDLoss(1.0)(student, teacher).item(), rel=1e-8)


def test_dkd_by_hand() -> None:
    # Of three classes, (1/2, 1/4, 1/4) against (1/4, 1/2, 1/4); the target is the first.
    student, teacher = (torch.tensor([p]).log() for p in ([0.25, 0.5, 0.25], [0.5, 0.25, 0.25]))
    targets = Targets((1, 1), labels=torch.tensor([0]))
    tckd = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    nckd = 0.5 * math.log(3 / 4) + 0.5 * math.log(3 / 2)
    loss = DKDLoss(alpha=1, beta=2, temperature=1)
    assert loss(student, teacher, targets=targets).item() == pytest.approx(tckd + 2 * nckd)
    assert loss(teacher, teacher, targets=targets).item() == pytest.approx(0, abs=1e-6)


def test_labels_of_regions() -> None:
    regions = torch.tensor(
        [[0, 0, 0, 10, 10], [0, 0, 0, 10, 21], [1, 0, 0, 10, 10], [0, 50, 50, 60, 60.0]]
    )
    boxes = [
        Boxes(torch.tensor([[0.0, 0, 10, 10], [0, 5, 10, 20]]), torch.tensor([3, 1])),
        Boxes(torch.zeros(0, 4), torch.zeros(0).long()),
    ]
    targets = Targets((64, 64), boxes=boxes, regions=regions)
    # Its own; 150 of 210 pixels; no box in the image; none near.
    assert targets.region_labels(9).tolist() == [3, 1, 9, 9]


def test_dkd_mistakes() -> None:
    logits = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="asks for regions"):
        DKDLoss(of="regions")(logits, logits, targets=Targets((1, 1)))
    with pytest.raises(ValueError, match="got mixed ones"):
        DKDLoss()(logits, logits, targets=Targets((1, 1), labels=torch.rand(2, 3)))
    with pytest.raises(ValueError, match="a label for each of 2 rows, got"):
        decoupled_kd(logits, logits, torch.zeros(3).long())
    with pytest.raises(ValueError, match="2 classes or more, got 1"):
        decoupled_kd(logits[:, :1], logits[:, :1], torch.zeros(2).long())
    with pytest.raises(ValueError, match="beta must be 0 or more and finite, got -1"):
        DKDLoss(beta=-1)
    with pytest.raises(ValueError, match="of must be 'images' or 'regions', got 'rois'"):
        DKDLoss(of="rois")  # type: ignore[arg-type]


# Boxes


@given(seed=seeds, temperature=temperatures)
def test_ld_by_loops(seed: int, temperature: float) -> None:
    student, teacher = pair(seed, 2, 12, 2, 3)
    scores = torch.rand(2, 1, 2, 3, generator=torch.Generator().manual_seed(seed)).double()
    total = 0.0
    for n in range(2):
        for y in range(2):
            for x in range(3):
                s, t = student[n, :, y, x].tolist(), teacher[n, :, y, x].tolist()
                for side in range(4):
                    own = slice(3 * side, 3 * side + 3)
                    p, q = softmax(s[own], temperature), softmax(t[own], temperature)
                    total += scores[n, 0, y, x].item() * divergence(q, p)
    expected = temperature**2 * total / (12 * scores.sum().item())
    targets = Targets((16, 24), scores=scores)
    found = LDLoss(temperature)(student, teacher, targets=targets).item()
    assert found == pytest.approx(expected, rel=1e-7)


@given(seed=seeds)
def test_ld_of_several_levels_is_one_mean_over_all_cells(seed: int) -> None:
    grids = ((4, 6), (2, 3), (1, 2))
    pairs = [pair(seed + i, 2, 8, *grid) for i, grid in enumerate(grids)]
    generator = torch.Generator().manual_seed(seed)
    scores = [torch.rand(2, 1, *grid, generator=generator).double() ** 3 for grid in grids]
    total = torch.stack([each.sum() for each in scores]).sum()
    found = sum(
        LDLoss(1.0)(*level, targets=Targets((32, 48), scores=each, total_score=total)).item()
        for level, each in zip(pairs, scores, strict=True)
    )
    summed = counted = 0.0
    for (student, teacher), each in zip(pairs, scores, strict=True):
        for n, y, x in np.ndindex(2, *each.shape[2:]):
            s, t = (side[n, :, y, x].tolist() for side in (student, teacher))
            kl = sum(
                divergence(softmax(t[i : i + 2], 1), softmax(s[i : i + 2], 1)) for i in (0, 2, 4, 6)
            )
            summed += each[n, 0, y, x].item() * kl / 8
            counted += each[n, 0, y, x].item()
    assert found == pytest.approx(summed / counted, rel=1e-7)


def test_ld_by_hand() -> None:
    """One cell that counts; of one side (1/2, 1/2) against (3/4, 1/4), three that agree."""
    student, teacher = torch.zeros(1, 8, 1, 2), torch.zeros(1, 8, 1, 2)
    teacher[0, 0] = math.log(3)
    scores = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)
    expected = (0.75 * math.log(1.5) + 0.25 * math.log(0.5)) / 8
    found = localization_distillation(student, teacher, scores, 1.0)
    assert found.item() == pytest.approx(expected)
    assert localization_distillation(teacher, teacher, scores).item() == pytest.approx(0, abs=1e-6)
    assert localization_distillation(student, teacher, 0 * scores).item() == 0


@pytest.mark.parametrize(
    ("channels", "said"),
    [
        ((68, 36), r"17 bins of a side of the student's \(68 channels\) and 9 of the teacher's"),
        ((4, 4), "4 sides of 2 bins or more, got 4 channels"),
        ((68, 10), "4 sides of 2 bins or more, got 10 channels"),
    ],
)
def test_distributions_are_not_projected(channels: tuple[int, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FeatureDistiller(*channels, loss=LDLoss())
    assert isinstance(FeatureDistiller(68, 68, loss=LDLoss()).projector, IdentityProjector)


@given(seed=seeds)
def test_score_weighted_l2_by_loops(seed: int) -> None:
    student, teacher = pair(seed, 2, 3, 2, 2)
    scores = torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(seed)).double()
    total = sum(
        scores[n, 0, y, x].item() * float((student - teacher)[n, c, y, x] ** 2)
        for n in range(2) for c in range(3) for y in range(2) for x in range(2)
    )  # fmt: skip
    targets = Targets((16, 16), scores=scores)
    found = ScoreWeightedL2Loss()(student, teacher, targets=targets).item()
    assert found == pytest.approx(total / (3 * scores.sum().item()), rel=1e-9)


def test_score_weighted_l2_by_hand() -> None:
    # Scores of 1 and 3, squares of 4 and 0 in each channel: 1/4 of 4.
    student, teacher = torch.tensor([2.0, 0.0]).expand(1, 5, 1, 2), torch.zeros(1, 5, 1, 2)
    targets = Targets((8, 16), scores=torch.tensor([1.0, 3.0]).reshape(1, 1, 1, 2))
    assert ScoreWeightedL2Loss()(student, teacher, targets=targets).item() == pytest.approx(1)


def test_scores_of_another_grid() -> None:
    student, teacher = torch.ones(1, 2, 1, 1), torch.zeros(1, 2, 1, 1)
    targets = Targets((8, 8), scores=torch.tensor([[0.0, 1], [0, 1]]).reshape(1, 1, 2, 2))
    assert ScoreWeightedL2Loss()(student, teacher, targets=targets).item() == pytest.approx(1)
