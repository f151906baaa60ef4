"""Factor transfer: its two stages, against loops."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from mmkd.distillers import FTDistiller
from mmkd.distillers.ft import factor_distance


def ft(**settings: Any) -> FTDistiller:
    return FTDistiller(3, 4, **{"paraphrase": 2, **settings}).double()


def pair(seed: int = 0, images: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(images, 3, 4, 4, generator=generator, dtype=torch.float64)
    return student, torch.randn(images, 4, 4, 4, generator=generator, dtype=torch.float64)


def by_hand(layers: nn.Sequential, x: Tensor, training: bool) -> Tensor:
    """Convolution, BatchNorm and leaky ReLU, three times."""
    for convolution, norm, _ in zip(layers[::3], layers[1::3], layers[2::3], strict=True):
        x = conv2d(x, convolution.weight, padding=1)
        mean, var = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), unbiased=False)
        if not training:
            mean, var = norm.running_mean, norm.running_var
        x = (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
        x = torch.where(x > 0, x, 0.1 * x)
    return x


def test_factors_against_loops() -> None:
    student, teacher = pair()[1], pair(1)[1]
    total = 0.0
    for ours, theirs in zip(student, teacher, strict=True):
        rows = [x.flatten().tolist() for x in (ours, theirs)]
        norms = [math.hypot(*row) for row in rows]
        total += sum(abs(a / norms[0] - b / norms[1]) for a, b in zip(*rows, strict=True))
    assert factor_distance(student, teacher).item() == pytest.approx(total / student.numel())
    assert factor_distance(3 * student, student).item() == pytest.approx(0)
    # (1, 0) against (0, 1).
    one = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1)
    assert factor_distance(one, one.flip(1)).item() == pytest.approx(1)


def test_first_the_paraphraser_learns_then_the_student() -> None:
    distiller = ft(weight=50.0)
    student, teacher = (x.requires_grad_() for x in pair())
    expected = by_hand(distiller.decoder, by_hand(distiller.encoder, teacher, True), True)
    expected = (expected - teacher).square().mean()
    for _ in range(2):
        # Whatever the weight.
        value = distiller(student, teacher)
        torch.testing.assert_close(value, expected)
        value.backward()
        assert student.grad is None and teacher.grad is None
    learned = {name for name, p in distiller.named_parameters() if p.grad is not None}
    assert {name.partition(".")[0] for name in learned} == {"encoder", "decoder"}
    distiller.zero_grad(set_to_none=True)
    before = {k: v.clone() for k, v in distiller.encoder.state_dict().items()}
    factor = by_hand(distiller.encoder, teacher, False)
    translated = by_hand(distiller.translator, student, True)
    value = distiller(student, teacher)
    torch.testing.assert_close(value, 50 * factor_distance(translated, factor))
    value.backward()
    assert student.grad is not None and student.grad.any() and teacher.grad is None
    assert all(p.grad is None for p in distiller.encoder.parameters())
    assert all(torch.equal(v, before[k]) for k, v in distiller.encoder.state_dict().items())


def test_a_resumed_run_stays_in_its_stage() -> None:
    distiller, other = ft(), ft(seed=1)
    for _ in range(3):
        distiller(*pair())
    other.load_state_dict(distiller.state_dict())
    assert torch.equal(distiller(*pair()), other(*pair()))


def test_gradients_and_half_precision() -> None:
    distiller = ft(paraphrase=1)
    student, teacher = pair()
    distiller(student, teacher)
    distiller.eval()
    assert torch.autograd.gradcheck(lambda x: distiller(x, teacher), student.requires_grad_())
    half = ft(paraphrase=1).float()
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            value = half(*(x.float() for x in pair(images=1)))
        assert value.dtype == torch.float32 and torch.isfinite(value)


def test_grids_that_differ_are_pooled() -> None:
    distiller = ft(paraphrase=1)
    student, teacher = pair()
    distiller(student, teacher)
    value = distiller(student.repeat_interleave(2, 2).repeat_interleave(2, 3), teacher)
    torch.testing.assert_close(value, distiller(student, teacher))


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="paraphrase must be a positive integer, got 0"):
        ft(paraphrase=0)
    with pytest.raises(ValueError, match="rate must be above 0 and at most 1, got 2"):
        ft(rate=2.0)
    with pytest.raises(ValueError, match="takes a number as its weight"):
        ft(weight=dict(share=0.5))


def test_a_map_of_one_cell_of_one_image() -> None:
    distiller = ft(paraphrase=1)
    student, teacher = (x.mean(dim=(2, 3), keepdim=True).requires_grad_() for x in pair(images=1))
    for _ in range(2):
        value = distiller(student, teacher)
        value.backward()
        assert torch.isfinite(value)
    assert student.grad is not None and torch.isfinite(student.grad).all() and student.grad.any()
