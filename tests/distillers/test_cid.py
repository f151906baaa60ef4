"""CID against loops: its parts, and the contexts that it gives the student's head."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradcheck

from mmkd.distillers import CIDDistiller
from mmkd.distillers.cid import class_distance, sample_distance
from mmkd.targets import Targets

STUDENT, TEACHER, CLASSES, IMAGES = 3, 4, 3, 6
Side = list[Tensor]


class Head(nn.Module):
    """What the distiller fills."""

    def __init__(self, classes: int = CLASSES, channels: int = STUDENT) -> None:
        super().__init__()
        self.register_buffer("context", torch.zeros(classes, channels, dtype=torch.float64))
        self.register_buffer("is_known", torch.zeros((), dtype=torch.bool))


def cid(head: nn.Module | None = None, **settings: Any) -> CIDDistiller:
    channels = [STUDENT, CLASSES], [TEACHER, CLASSES]
    settings = {"initial": 4, "every": 2, **settings}
    return CIDDistiller(*channels, head or Head(), **settings).double()


def batch(seed: int = 0, labels: tuple[int, ...] = (0, 1, 1, 2, 1, 0)) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(seed)
    sides = [
        [
            torch.randn(IMAGES, width, 2, 2, generator=generator, dtype=torch.float64),
            torch.randn(IMAGES, CLASSES, generator=generator, dtype=torch.float64),
        ]
        for width in (STUDENT, TEACHER)
    ]
    return sides[0], sides[1], Targets((8, 8), labels=torch.tensor(labels))


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def class_by_loops(student: Tensor, teacher: Tensor, labels: list[int]) -> float:
    s, t = student.tolist(), teacher.tolist()
    found = []
    for each in set(labels):
        own = [i for i, label in enumerate(labels) if label == each]
        if len(own) > 1:
            total = sum((cosine(s[i], s[j]) - cosine(t[i], t[j])) ** 2 for i in own for j in own)
            found.append(total / len(own) ** 2)
    return sum(found) / len(found) if found else 0.0


@given(seed=st.integers(0, 2**16), labels=st.lists(st.integers(0, 3), min_size=1, max_size=7))
def test_classes_against_loops(seed: int, labels: list[int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (
        torch.randn(len(labels), width, generator=generator, dtype=torch.float64)
        for width in (3, 5)
    )
    value = class_distance(student, teacher, torch.tensor(labels))
    expected = class_by_loops(student, teacher, labels)
    assert value.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    # Angles alone count.
    turned = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
    assert class_distance(7 * student @ turned, teacher, torch.tensor(labels)).item() == (
        pytest.approx(expected, rel=1e-9, abs=1e-12)
    )


def test_distances_by_hand() -> None:
    # (3, 4) is 5 long, and (0, 1) off by (3, 3): 18 / 25. Zeros count as of length 1.
    teacher = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    student = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert sample_distance(student, teacher).item() == pytest.approx((18 / 25 + 1) / 2)
    # One class of two: right angles on one side, one direction on the other; 2 of 4 entries.
    student = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    labels = torch.tensor([5, 5, 0])
    assert class_distance(student, torch.ones(3, 2), labels).item() == pytest.approx(2 / 4)


def test_the_sum() -> None:
    student, teacher, targets = batch()
    distiller = cid(logits=0.5, samples=2.0, classes=3.0, weight=4.0)
    f, t = (side[0].mean(dim=(2, 3)) for side in (student, teacher))
    p, q = ((side[1] / 4).softmax(dim=1) for side in (student, teacher))
    divergence = 16 * (q * (q / p).log()).sum() / IMAGES
    projected = f @ distiller.layer.weight.T + distiller.layer.bias
    samples = ((projected - t) ** 2).sum(dim=1) / (t**2).sum(dim=1)
    classes = class_by_loops(f, t, targets.labels.tolist())
    expected = 4 * (0.5 * divergence + 2 * samples.mean() + 3 * classes)
    assert distiller(student, teacher, targets).item() == pytest.approx(expected.item(), rel=1e-9)


def test_gradients_by_finite_differences() -> None:
    student, teacher, targets = batch()
    distiller = cid(logits=0.5, samples=2.0, classes=3.0).eval()
    sides = [x.requires_grad_() for x in student]
    assert gradcheck(lambda *x: distiller(list(x), teacher, targets), sides)


def test_contexts_are_means_of_what_was_seen() -> None:
    head = Head()
    distiller = cid(head)
    seen: list[tuple[list[float], float, int]] = []
    for step in range(1, 10):
        # Of the last three, no image is of class 2.
        labels = (0, 1, 1, 2, 1, 0) if step < 7 else (0, 1, 1, 0, 1, 0)
        student, teacher, targets = batch(step, labels)
        before = head.context.clone()
        distiller(student, teacher, targets)
        for feature, logits, label in zip(student[0], teacher[1], labels, strict=True):
            likely = [math.exp(x / 4) for x in logits.tolist()]
            vector = [float(channel.mean()) for channel in feature]
            seen.append((vector, likely[label] / sum(likely), label))
        # An epoch's means come into force with the next.
        if step in (5, 7, 9):
            for label in range(CLASSES):
                own = [(v, w) for v, w, k in seen[-3 * IMAGES : -IMAGES] if k == label]
                mean = [sum(w * v[c] for v, w in own) for c in range(STUDENT)]
                total = sum(w for _, w in own)
                expected = [x / total for x in mean] if own else before[label].tolist()
                assert head.context[label].tolist() == pytest.approx(expected, rel=1e-6)
        else:
            assert torch.equal(head.context, before)
        assert bool(head.is_known) == (step >= 5)


def test_it_goes_on_after_a_stop_and_rests_in_evaluation() -> None:
    whole, part = Head(), Head()
    distiller, other = cid(whole), cid(part)
    batches = [batch(seed) for seed in range(5)]
    for each in batches:
        distiller(*each)
    for each in batches[:4]:
        other(*each)
    assert not part.is_known
    resumed_head = copy.deepcopy(part)
    resumed = cid(resumed_head, seed=3)
    resumed.load_state_dict(other.state_dict())
    resumed(*batches[4])
    assert resumed_head.is_known and torch.equal(resumed_head.context, whole.context)
    still = Head()
    resting = cid(still, initial=1, every=1).eval()
    for each in batches:
        resting(*each)
    assert not still.is_known


def test_gradients_and_whose_they_are() -> None:
    student, teacher, targets = batch()
    head = Head()
    distiller = cid(head)
    assert "context" not in {name.rpartition(".")[2] for name in distiller.state_dict()}
    sides = [[x.requires_grad_() for x in side] for side in (student, teacher)]
    distiller(*sides, targets).backward()
    assert all(x.grad is not None for x in sides[0])
    assert all(x.grad is None for x in sides[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [0.0, 100.0])
def test_half_precision(dtype: torch.dtype, scale: float) -> None:
    student, teacher, targets = batch()
    student, teacher = ([(scale * x).to(dtype) for x in side] for side in (student, teacher))
    for x in student:
        x.requires_grad_()
    distiller = CIDDistiller([STUDENT, CLASSES], [TEACHER, CLASSES], Head(), 1, 1)
    value = distiller(student, teacher, targets)
    value.backward()
    assert value.dtype == torch.float32 and torch.isfinite(value)
    assert all(torch.isfinite(x.grad).all() for x in student)


def test_what_it_refuses() -> None:
    for head, message in (
        (nn.Linear(3, 3), r"a Linear: give the model head=dict\(type='mmkd.ContextClsHead'"),
        (Head(4, 3), r"of 4 classes and 3 channels, the student's logits of 3 .* feature of 3"),
    ):
        with pytest.raises(ValueError, match=message):
            cid(head)
    with pytest.raises(ValueError, match="takes a number as its weight"):
        cid(weight=dict(share=0.3))
    with pytest.raises(ValueError, match="every must be a positive integer"):
        cid(every=0)
    with pytest.raises(ValueError, match=r"two modules of either side, .* got 1"):
        CIDDistiller([3], [4], Head(), 1, 1)
    with pytest.raises(ValueError, match="same classes, got 5 of the student and 7"):
        CIDDistiller([3, 5], [4, 7], Head(), 1, 1)
    student, teacher, _ = batch()
    with pytest.raises(ValueError, match="CIDDistiller needs what the images show"):
        cid()(student, teacher)
    with pytest.raises(ValueError, match="the feature first and then the logits"):
        cid().check_features(student, teacher[::-1])
