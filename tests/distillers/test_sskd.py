"""SSKD against loops: which images are kept, its parts, and its two stages."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from mmkd.distillers import SSKDDistiller
from mmkd.distillers.sskd import kept, place_of
from mmkd.targets import Targets

STUDENT, TEACHER, CLASSES, IMAGES = 3, 4, 5, 3
Side = list[Tensor]


def sskd(**settings: Any) -> SSKDDistiller:
    channels = [STUDENT, CLASSES], [TEACHER, CLASSES]
    return SSKDDistiller(*channels, **{"pretext": 2, **settings}).double()


def turned(labels: Tensor) -> Targets:
    return Targets((8, 8), labels=torch.cat([labels, torch.full((3 * len(labels),), -100)]))


def batch(seed: int = 0) -> tuple[Side, Side, Targets]:
    generator = torch.Generator().manual_seed(seed)
    sides = [
        [
            torch.randn(4 * IMAGES, width, 2, 2, generator=generator, dtype=torch.float64),
            2 * torch.randn(4 * IMAGES, CLASSES, generator=generator, dtype=torch.float64),
        ]
        for width in (STUDENT, TEACHER)
    ]
    return sides[0], sides[1], turned(torch.randint(CLASSES, (IMAGES,), generator=generator))


def softened(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(x / temperature) for x in row]
    return [x / sum(powers) for x in powers]


def divergence(ours: Tensor, theirs: Tensor, temperature: float, rows: list[int]) -> float:
    total = 0.0
    for row in rows:
        p = softened(theirs[row].tolist(), temperature)
        q = softened(ours[row].tolist(), temperature)
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return temperature**2 * total / max(1, len(rows))


def chosen(scores: Tensor, columns: list[int], ratio: float) -> list[int]:
    """Rows, by sorting them."""
    places = [
        sorted(row, reverse=True).index(row[column])
        for row, column in zip(scores.tolist(), columns, strict=True)
    ]
    order = sorted(range(len(places)), key=lambda i: places[i])
    wrong = sum(place > 0 for place in places)
    return order[: len(places) - wrong + int(wrong * ratio)]


def cosines(network: torch.nn.Module, feature: Tensor) -> Tensor:
    vectors = network(feature.mean(dim=(2, 3)))
    rows = [
        [float(a @ b) / math.sqrt(float(a @ a) * float(b @ b)) for b in vectors[:IMAGES]]
        for a in vectors[IMAGES:]
    ]
    return torch.tensor(rows, dtype=torch.float64)


def by_loops(distiller: SSKDDistiller, student: Side, teacher: Side, labels: Tensor) -> list[float]:
    """The three parts, and the pretext's loss."""
    ours, theirs = student[1], teacher[1]
    of_turns = chosen(theirs[IMAGES:], labels.tolist() * 3, distiller.kept_turned)
    similar = cosines(distiller.teacher_network, teacher[0])
    own = list(range(IMAGES)) * 3
    of_relations = chosen(similar, own, distiller.kept_relations)
    pretext = -sum(
        math.log(softened(row, 1.0)[i]) for row, i in zip(similar.tolist(), own, strict=True)
    )
    return [
        divergence(ours, theirs, 4.0, list(range(IMAGES))),
        divergence(ours[IMAGES:], theirs[IMAGES:], 4.0, of_turns),
        divergence(cosines(distiller.student_network, student[0]), similar, 0.5, of_relations),
        pretext / (3 * IMAGES),
    ]


@given(seed=st.integers(0, 2**16), ratio=st.sampled_from([0.0, 0.4, 0.75, 1.0]))
def test_against_loops(seed: int, ratio: float) -> None:
    student, teacher, targets = batch(seed)
    distiller = sskd(weight=3.0, kept_turned=ratio, kept_relations=1 - ratio, seed=seed)
    normal, of_turns, relations, pretext = by_loops(
        distiller, student, teacher, targets.labels[:IMAGES]
    )
    for _ in range(2):
        value = distiller(student, teacher, targets)
        expected = 3 * (0.9 * normal + 2.7 * of_turns) + pretext
        assert value.item() == pytest.approx(expected, rel=1e-9)
    value = distiller(student, teacher, targets)
    expected = 3 * (0.9 * normal + 2.7 * of_turns + 10 * relations)
    assert value.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("stage", [0, 1])
def test_gradients_by_finite_differences(stage: int) -> None:
    student, teacher, targets = batch()
    distiller = sskd(pretext=1, kept_turned=0.5)
    for _ in range(stage):
        distiller(student, teacher, targets)
    distiller.eval()  # Stages do not go on.
    sides = [x.requires_grad_() for x in student]
    assert gradcheck(lambda *x: distiller(list(x), teacher, targets), sides)


def test_one_image_by_hand() -> None:
    """Its relations are rows of one entry, which leave nothing; its logits have odds of 4 against
    equal ones, at T = 4."""
    teacher = torch.zeros(4, CLASSES, dtype=torch.float64)
    teacher[0, 0] = 4 * math.log(4.0)
    student = torch.zeros_like(teacher)
    labels = turned(torch.tensor([0]))
    features = [torch.ones(4, width, dtype=torch.float64) for width in (STUDENT, TEACHER)]
    distiller = sskd(pretext=1, normal=1.0, turned=0.0).eval()
    # p = (4, 1, 1, 1, 1) / 8 against a fifth each.
    expected = 16 * (math.log(5 / 2) / 2 + math.log(5 / 8) / 2)
    value = distiller([features[0], student], [features[1], teacher], labels)
    assert value.item() == pytest.approx(expected, rel=1e-12)


def test_what_is_kept_by_hand() -> None:
    scores = torch.tensor([[3.0, 2.0, 1.0]] * 4)
    columns = torch.tensor([2, 0, 1, 2])
    assert place_of(scores, columns).tolist() == [2, 0, 1, 2]
    places = torch.tensor([2, 0, 1, 2])
    assert kept(places, 0.0).tolist() == [False, True, False, False]
    # Of three wrong ones two thirds: the nearest to right, then the first.
    assert kept(places, 0.7).tolist() == [True, True, True, False]
    assert kept(places, 1.0).all()


def test_first_the_teacher_s_network_learns_then_the_student_s() -> None:
    student, teacher, targets = batch()
    distiller = sskd(pretext=1)
    for stage, moved in enumerate(("teacher_network", "student_network")):
        distiller.zero_grad()
        sides = [[x.clone().requires_grad_() for x in side] for side in (student, teacher)]
        distiller(*sides, targets).backward()
        learning = {k.split(".")[0] for k, v in distiller.named_parameters() if v.grad is not None}
        assert learning == {moved}
        # The student's feature learns with its network, its logits from the beginning.
        assert (sides[0][0].grad is not None) == bool(stage)
        assert sides[0][1].grad is not None
        assert all(x.grad is None for x in sides[1])


def test_stages_survive_a_stop_and_rest_in_evaluation() -> None:
    student, teacher, targets = batch()
    distiller = sskd()
    distiller(student, teacher, targets)
    other = sskd(seed=5)
    other.load_state_dict(copy.deepcopy(distiller.state_dict()))
    values = [each(student, teacher, targets) for each in (distiller, other) for _ in range(2)]
    assert values[:2] == values[2:]
    assert values[0] != values[1]
    fresh = sskd().eval()
    for _ in range(4):
        fresh(student, teacher, targets)
    assert fresh.iterations.so_far() == 0


def test_equal_sides_leave_nothing() -> None:
    student, _, targets = batch()
    distiller = SSKDDistiller([STUDENT, CLASSES], [STUDENT, CLASSES], pretext=1).double()
    distiller(student, student, targets)
    distiller.student_network.load_state_dict(distiller.teacher_network.state_dict())
    assert distiller(student, student, targets).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0])
def test_half_precision_of_one_image(dtype: torch.dtype, scale: float) -> None:
    student, teacher = (
        [(scale * x[:4]).to(dtype).requires_grad_() for x in side] for side in batch()[:2]
    )
    distiller = SSKDDistiller([STUDENT, CLASSES], [TEACHER, CLASSES], pretext=1)
    for _ in range(2):
        value = distiller(student, teacher, turned(torch.tensor([1])))
        value.backward()
        assert value.dtype == torch.float32 and torch.isfinite(value)
        assert torch.isfinite(student[1].grad).all()
    assert torch.isfinite(student[0].grad).all()


def test_what_it_refuses() -> None:
    for settings, message in (
        (dict(pretext=0), "pretext must be a positive integer"),
        (dict(turned=-1.0), "turned must be 0 or more"),
        (dict(kept_relations=1.5), "kept_relations must be from 0 to 1"),
        (dict(weight=dict(share=0.3)), "takes a number as its weight"),
    ):
        with pytest.raises(ValueError, match=message):
            sskd(**settings)
    with pytest.raises(ValueError, match=r"two modules of either side, .* got 1"):
        SSKDDistiller([3], [4], pretext=1)
    with pytest.raises(ValueError, match="same classes, got 5 of the student and 7"):
        SSKDDistiller([3, 5], [4, 7], pretext=1)
    student, teacher, _ = batch()
    with pytest.raises(ValueError, match="SSKDDistiller needs what the images show"):
        sskd()(student, teacher)
    with pytest.raises(ValueError, match="the feature first and then the logits"):
        sskd().check_features(student[::-1], teacher)
    for labels in (torch.zeros(12, dtype=torch.long), torch.zeros(11, dtype=torch.long)):
        sides = ([x[: len(labels)] for x in side] for side in (student, teacher))
        with pytest.raises(ValueError, match=r"batches of images and their turns: .*Rotation"):
            sskd()(*sides, Targets((8, 8), labels=labels))
