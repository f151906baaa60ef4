"""AFD against loops over levels and images."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmkd.distillers import AFDDistiller
from mmkd.distillers.afd import attention_pattern


def afd(width: int = 6) -> AFDDistiller:
    return AFDDistiller([2, 3], [4, 5, 4], width=width).double()


def levels(seed: int = 0, images: int = 3) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)

    def drawn(channels: int, side: int) -> Tensor:
        shape = (images, channels, side, side)
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return [drawn(2, 4), drawn(3, 2)], [drawn(4, 8), drawn(5, 2), drawn(4, 2)]


def pattern_by_loops(feature: Tensor, side: int) -> list[float]:
    """Of one image's map: squares, of a larger one pooled, of a smaller one repeated."""
    own = feature.shape[1]
    values = []
    for y in range(side):
        for x in range(side):
            squares = [
                float((feature[:, v, u] ** 2).mean())
                for v in range(own)
                for u in range(own)
                if (v * side // own == y and u * side // own == x)
                or (own < side and v == y * own // side and u == x * own // side)
            ]
            values.append(sum(squares) / len(squares))
    return [v / math.hypot(*values) for v in values]


def test_a_pattern_by_hand() -> None:
    # Means of squares over channels, (9 + 1) / 2 and (1 + 1) / 2.
    feature = torch.tensor([[[3.0, 1.0]], [[-1.0, -1.0]]])[None]
    expected = torch.tensor([[5.0, 1.0]]) / math.sqrt(26)
    torch.testing.assert_close(attention_pattern(feature, (1, 2)), expected)
    # Squared before they are pooled, entries do not cancel: 16 and 0.
    opposite = torch.tensor([[[4.0, -4.0, 0.0, 0.0]]])[None]
    expected = torch.tensor([[1.0, 0.0]])
    torch.testing.assert_close(attention_pattern(opposite, (1, 2)), expected)


def test_patterns_against_loops() -> None:
    feature = levels()[0][0]
    for side in (2, 4, 8):
        found = attention_pattern(feature, (side, side))
        for image, row in zip(feature, found.tolist(), strict=True):
            assert row == pytest.approx(pattern_by_loops(image, side))


def test_distance_against_loops() -> None:
    distiller = afd()
    student, teacher = levels()
    attention = distiller.attention(student, teacher)
    assert attention.shape == (3, 3, 2)
    torch.testing.assert_close(attention.sum(dim=2), torch.ones(3, 3, dtype=torch.float64))
    total = 0.0
    for t, theirs in enumerate(teacher):
        side = theirs.shape[2]
        for image in range(3):
            wanted = pattern_by_loops(theirs[image], side)
            for s, ours in enumerate(student):
                own = pattern_by_loops(ours[image], side)
                squares = [(a - b) ** 2 for a, b in zip(own, wanted, strict=True)]
                total += float(attention[image, t, s]) * sum(squares) / len(squares) / 3
    assert distiller(student, teacher).item() == pytest.approx(total)


def test_attention_against_loops() -> None:
    distiller = afd().eval()
    student, teacher = levels()
    for each in (*distiller.keys, *distiller.queries, distiller.bilinear):
        each.norm.running_mean.fill_(0.1)
        each.norm.running_var.fill_(0.5)

    def mapped(module: torch.nn.Module, values: Tensor) -> list[float]:
        row = module.linear.weight @ values + module.linear.bias
        return [(float(v) - 0.1) / math.sqrt(0.5 + 1e-5) for v in row]

    found = distiller.attention(student, teacher)
    for image in range(3):
        for t in range(3):
            query = mapped(distiller.queries[t], teacher[t][image].mean(dim=(1, 2)))
            logits = []
            for s in range(2):
                key = mapped(distiller.keys[s], student[s][image].mean(dim=(1, 2)))
                positive = torch.tensor([max(0.0, v) for v in key], dtype=torch.float64)
                turned = mapped(distiller.bilinear, positive)[6 * t : 6 * t + 6]
                places = float(distiller.teacher_places[t] @ distiller.student_places[s])
                product = sum(a * b for a, b in zip(query, turned, strict=True))
                logits.append((product + places) / math.sqrt(6))
            powers = [math.exp(x) for x in logits]
            expected = [p / sum(powers) for p in powers]
            assert found[image, t].tolist() == pytest.approx(expected)


def test_gradients() -> None:
    distiller = afd().eval()
    student, teacher = levels()
    student = [x.requires_grad_() for x in student]
    for theirs in teacher:
        theirs.requires_grad_()
    assert torch.autograd.gradcheck(lambda *x: distiller(x, teacher), student)
    distiller(student, teacher).backward()
    assert all(p.grad is not None and p.grad.any() for p in distiller.parameters())
    assert all(theirs.grad is None for theirs in teacher)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_one_image_and_zeros(dtype: torch.dtype) -> None:
    distiller = afd().float()
    for scale in (1.0, 0.0, 6e4):
        student, teacher = levels(images=1)
        student = [(scale * x.sign()).to(dtype).requires_grad_() for x in student]
        value = distiller(student, [x.to(dtype) for x in teacher])
        value.backward()
        assert value.dtype == torch.float32 and torch.isfinite(value)
        assert all(x.grad is not None and torch.isfinite(x.grad).all() for x in student)
    assert distiller.keys[0].norm.training


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="width must be a positive integer, got 0"):
        AFDDistiller([2], [3], width=0)
    with pytest.raises(ValueError, match=r"AFD takes maps \[N, C, H, W\], got \(2, 3\)"):
        AFDDistiller([3], [3])([torch.zeros(2, 3)], [torch.zeros(2, 3)])
