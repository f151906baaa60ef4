"""USKD against loops: its two labels, and its sum."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from mmkd.distillers import USKDDistiller
from mmkd.distillers.uskd import label_of_the_others, label_of_the_target
from mmkd.targets import Targets

CHANNELS, CLASSES = 3, 5


def batch(seed: int = 0, images: int = 4) -> tuple[Tensor, Tensor, Targets]:
    generator = torch.Generator().manual_seed(seed)
    middle = torch.randn(images, CHANNELS, 2, 2, generator=generator, dtype=torch.float64)
    logits = 2 * torch.randn(images, CLASSES, generator=generator, dtype=torch.float64)
    labels = torch.randint(CLASSES, (images,), generator=generator)
    return middle, logits, Targets((8, 8), labels=labels)


def uskd(**settings: Any) -> USKDDistiller:
    return USKDDistiller([CHANNELS, CLASSES], **settings).double()


def probabilities(row: list[float]) -> list[float]:
    total = sum(map(math.exp, row))
    return [math.exp(x) / total for x in row]


def by_loops(distiller: USKDDistiller, middle: Tensor, logits: Tensor, labels: Tensor) -> float:
    """From the paper's section 3.3, one image and one class at a time."""
    images = len(labels)
    strong = [probabilities(row) for row in logits.tolist()]
    weak = []
    for image in middle:
        pooled = [float(channel.mean()) for channel in image]
        rows = zip(distiller.classifier.weight, distiller.classifier.bias, strict=True)
        weak.append(
            probabilities(
                [
                    float(b) + sum(float(a) * x for a, x in zip(w, pooled, strict=True))
                    for w, b in rows
                ]
            )
        )
    squares = [p[k] ** 2 for p, k in zip(strong, labels.tolist(), strict=True)]
    total = 0.0
    for n, k in enumerate(labels.tolist()):
        p, w = strong[n], weak[n]
        total -= distiller.target * (squares[n] + 1 - sum(squares) / images) * math.log(p[k])
        others = [i for i in range(CLASSES) if i != k]
        likely = {i: w[i] / (1 - w[k]) + p[i] / (1 - p[k]) for i in others}
        ranked = sorted(others, key=lambda i: -likely[i])
        harmonic = sum(1 / r for r in range(1, CLASSES))
        for rank, i in enumerate(ranked, 1):
            total -= distiller.others * (1 / rank) / harmonic * math.log(p[i] / (1 - p[k]))
        smooth = [0.1 / CLASSES + (0.9 if i == k else 0) for i in range(CLASSES)]
        total -= distiller.weak * sum(a * math.log(b) for a, b in zip(smooth, w, strict=True))
    return total / images


@given(seed=st.integers(0, 2**16), images=st.integers(1, 5))
def test_against_loops(seed: int, images: int) -> None:
    middle, logits, targets = batch(seed, images)
    distiller = uskd(target=0.7, others=0.3, weak=0.4, seed=seed)
    value = distiller.distance([middle, logits], None, targets)
    expected = by_loops(distiller, middle, logits, targets.labels)
    assert value.item() == pytest.approx(expected, rel=1e-9)
    distiller = uskd(weight=2.0, seed=seed)
    assert distiller([middle, logits], None, targets).item() == pytest.approx(
        2 * by_loops(distiller, middle, logits, targets.labels), rel=1e-9
    )


def test_labels_by_hand() -> None:
    # Probabilities 0.2 and 0.6 of the images' own classes: 0.04 and 0.36, 0.2 on average.
    logits = torch.tensor([[0.2, 0.5, 0.3], [0.1, 0.6, 0.3]], dtype=torch.float64).log()
    labels = torch.tensor([0, 1])
    target = label_of_the_target(logits, labels)
    torch.testing.assert_close(target, torch.tensor([0.84, 1.16], dtype=torch.float64))
    # Ranks 1 and 2 of two others: 1 and 1/2 of 3/2. The weak logits turn the first image's around.
    weak = torch.tensor([[0.5, 0.05, 0.45], [0.2, 0.4, 0.4]], dtype=torch.float64).log()
    others = label_of_the_others(logits, weak, labels)
    expected = torch.tensor([[1 / 3, 2 / 3], [1 / 3, 2 / 3]], dtype=torch.float64)
    torch.testing.assert_close(others, expected)


def test_gradients_leave_the_labels_alone() -> None:
    middle, logits, targets = batch()
    distiller = uskd()
    fixed = label_of_the_target(logits, targets.labels)
    others = label_of_the_others(
        logits, distiller.classifier(middle.mean(dim=(2, 3))), targets.labels
    )
    logits.requires_grad_()
    distiller.distance([middle, logits], None, targets).backward()
    rows = torch.arange(4)
    p = logits.detach().softmax(dim=1)
    one = torch.zeros_like(p)
    one[rows, targets.labels] = 1
    # d(-P log s_k) = P (s - e_k); d(-sum Z log s') = s' - Z among the others.
    expected = fixed[:, None] * (p - one)
    rest = (p * (1 - one)) / (1 - p[rows, targets.labels])[:, None]
    placed = torch.zeros_like(p)
    placed[one == 0] = others.flatten()
    expected = (expected + 0.1 * (rest - placed)) / 4
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, expected)
    assert distiller.classifier.weight.grad is not None


def test_the_middle_s_gradient_by_finite_differences() -> None:
    """By way of its classifier; the logits' labels hang on it too, without gradient."""
    middle, logits, targets = batch()
    distiller = uskd(others=0.0)
    assert gradcheck(
        lambda x: distiller.distance([x, logits], None, targets), middle.requires_grad_()
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_of_certain_and_of_equal_logits(dtype: torch.dtype) -> None:
    for scale in (0.0, 50.0):
        middle, logits, targets = batch(images=1)
        middle, logits = (x.detach().to(dtype) * scale for x in (middle, logits))
        logits.requires_grad_()
        distiller = USKDDistiller([CHANNELS, CLASSES])
        value = distiller.distance([middle, logits], None, targets)
        value.backward()
        assert value.dtype == torch.float32 and torch.isfinite(value)
        assert logits.grad is not None and torch.isfinite(logits.grad).all()


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match=r"two modules of the student, .* got 3"):
        USKDDistiller([3, 4, 5])
    with pytest.raises(ValueError, match="others must be 0 or more"):
        USKDDistiller([3, 4], others=-1)
    middle, logits, _ = batch()
    mixed = Targets((8, 8), labels=torch.full((4, CLASSES), 0.2))
    with pytest.raises(ValueError, match="USKDDistiller needs one class an image, got mixed"):
        uskd().distance([middle, logits], None, mixed)
    with pytest.raises(ValueError, match="USKDDistiller needs what the images show"):
        uskd().distance([middle, logits])
    with pytest.raises(ValueError, match="logits of 2 classes or more, got 1"):
        USKDDistiller([6, 1])
    with pytest.raises(ValueError, match=r"first and then the logits .* got \(4, 3, 2, 2\)"):
        uskd().check_features([logits, torch.zeros(4, 3, 2, 2)], [])
