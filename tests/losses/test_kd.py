from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mmkd.losses import HardDistillationLoss, KDLoss
from mmkd.losses.hard_distillation import hard_distillation
from mmkd.losses.kd import kd

seeds = st.integers(0, 2**16)
temperatures = st.floats(0.3, 20)
both = pytest.mark.parametrize("loss", [KDLoss(), HardDistillationLoss()], ids=["soft", "hard"])


def _logits(seed: int, n: int, k: int, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = scale * torch.randn(2, n, k, generator=generator, dtype=torch.float64)
    return student, teacher


def _softmax(row: list[float]) -> list[float]:
    powers = [math.exp(each - max(row)) for each in row]
    return [power / sum(powers) for power in powers]


# Soft


def test_value_by_hand() -> None:
    # With T = 2 the student says 1/4 and 3/4, the teacher 1/2 and 1/2.
    student, teacher = torch.tensor([[0.0, 2 * math.log(3)]]), torch.tensor([[5.0, 5.0]])
    kl = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert kd(student, teacher, 2.0).item() == pytest.approx(2**2 * kl)
    # The other way around it would be another number.
    swapped = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert kd(teacher, student, 2.0).item() == pytest.approx(2**2 * swapped)


@given(seed=seeds, n=st.integers(1, 5), k=st.integers(1, 6), temperature=temperatures)
def test_against_loops(seed: int, n: int, k: int, temperature: float) -> None:
    student, teacher = _logits(seed, n, k)
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        p, q = (_softmax([each / temperature for each in row]) for row in (s, t))
        total += sum(b * (math.log(b) - math.log(a)) for a, b in zip(p, q, strict=True))
    value = KDLoss(temperature)(student, teacher).item()
    assert value == pytest.approx(temperature**2 * total / n, abs=1e-9)
    assert value >= -1e-12


@given(seed=seeds, temperature=temperatures)
def test_gradient_by_the_formula(seed: int, temperature: float) -> None:
    """Hinton et al., Eq. (2), times T^2: T (softmax(s / T) - softmax(t / T)) / N."""
    student, teacher = _logits(seed, 4, 5)
    kd(student.requires_grad_(), teacher, temperature).backward()
    p, q = ((each.detach() / temperature).softmax(dim=1) for each in (student, teacher))
    torch.testing.assert_close(student.grad, temperature * (p - q) / 4)


@given(seed=seeds, temperature=temperatures)
def test_equal_logits(seed: int, temperature: float) -> None:
    student, _ = _logits(seed, 4, 5)
    value = kd(student.requires_grad_(), student.detach().clone(), temperature)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert student.grad.abs().max() < 1e-12


@given(seed=seeds, temperature=temperatures)
def test_a_constant_added_to_a_sample_changes_nothing(seed: int, temperature: float) -> None:
    student, teacher = _logits(seed, 4, 5)
    ours, theirs = _logits(seed + 1, 4, 1, scale=50)
    torch.testing.assert_close(
        kd(student + ours, teacher + theirs, temperature), kd(student, teacher, temperature)
    )


@given(seed=seeds, k=st.integers(2, 6))
def test_a_high_temperature_matches_centred_logits(seed: int, k: int) -> None:
    """Hinton et al., section 2.1: the squared distance of centred logits, over 2 K."""
    student, teacher = _logits(seed, 4, k)
    centred = (each - each.mean(dim=1, keepdim=True) for each in (student, teacher))
    difference = next(centred) - next(centred)
    expected = difference.square().sum(dim=1).mean() / (2 * k)
    torch.testing.assert_close(kd(student, teacher, 1e4), expected, rtol=1e-2, atol=1e-4)


@given(seed=seeds)
def test_a_low_temperature_is_the_hard_form(seed: int) -> None:
    """T KL(...) / T^2 has the largest logit's distance as its limit; so has T times CE."""
    student, teacher = _logits(seed, 4, 5)
    temperature = 1e-4
    hard = hard_distillation(student / temperature, teacher) * temperature
    torch.testing.assert_close(
        kd(student, teacher, temperature) / temperature, hard, rtol=1e-2, atol=1e-2
    )


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_largest_logits(dtype: torch.dtype, temperature: float) -> None:
    largest = 65504.0 if dtype == torch.float16 else 2.0**100
    student = torch.tensor([[largest, -largest, 0.0]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-largest, largest, 0.0]], dtype=dtype)
    value = kd(student, teacher, temperature)
    value.backward()
    # The teacher is sure of the second class, which the student thinks 2 largest / T below.
    assert value.item() == pytest.approx(2 * largest * temperature)
    assert student.grad.tolist() == [[temperature, -temperature, 0]]
    equal = kd(teacher, teacher, temperature)
    assert equal.item() == 0


@pytest.mark.parametrize("temperature", [0, -1, math.nan, math.inf])
def test_a_temperature_out_of_range(temperature: float) -> None:
    message = f"temperature must be above 0 and finite, got {temperature}"
    with pytest.raises(ValueError, match=message):
        KDLoss(temperature)
    with pytest.raises(ValueError, match=message):
        kd(torch.zeros(1, 2), torch.zeros(1, 2), temperature)


def test_the_default_temperature() -> None:
    student, teacher = _logits(0, 4, 5)
    assert KDLoss().temperature == 4.0
    assert torch.equal(KDLoss()(student, teacher), kd(student, teacher, 4.0))


# Hard


def test_hard_value_by_hand() -> None:
    student = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]])
    teacher = torch.tensor([[-7.0, 2.0], [1.0, 0.9]])
    # The student gives 3/4 to what the teacher chooses first, 1/4 to what it chooses then.
    expected = -(math.log(3 / 4) + math.log(1 / 4)) / 2
    assert hard_distillation(student, teacher).item() == pytest.approx(expected)


@given(seed=seeds, n=st.integers(1, 5), k=st.integers(1, 6))
def test_hard_against_loops(seed: int, n: int, k: int) -> None:
    student, teacher = _logits(seed, n, k)
    rows = zip(student.tolist(), teacher.tolist(), strict=True)
    total = sum(-math.log(_softmax(s)[t.index(max(t))]) for s, t in rows)
    assert HardDistillationLoss()(student, teacher).item() == pytest.approx(total / n, abs=1e-9)


@given(seed=seeds)
def test_hard_gradient_by_the_formula(seed: int) -> None:
    student, teacher = _logits(seed, 4, 5)
    hard_distillation(student.requires_grad_(), teacher.requires_grad_()).backward()
    chosen = torch.eye(5, dtype=torch.float64)[teacher.argmax(dim=1)]
    torch.testing.assert_close(student.grad, (student.detach().softmax(dim=1) - chosen) / 4)
    assert teacher.grad is None


@given(seed=seeds, scale=st.floats(0.01, 100), shift=st.floats(-50, 50))
def test_only_the_teacher_s_decisions_matter(seed: int, scale: float, shift: float) -> None:
    student, teacher = _logits(seed, 4, 5)
    other = scale * teacher.sinh() + shift
    assert torch.equal(hard_distillation(student, other), hard_distillation(student, teacher))


def test_hard_of_the_largest_float16_logits() -> None:
    student = torch.tensor([[65504.0, -65504.0]], dtype=torch.float16, requires_grad=True)
    value = hard_distillation(student, -student.detach())
    value.backward()
    assert value.item() == pytest.approx(2 * 65504)
    assert student.grad.tolist() == [[1, -1]]


# Both


@both
@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (2, 3, 4, 5)])
def test_other_ranks_are_refused(loss: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected logits \[N, K\], got \("):
        loss(torch.zeros(shape), torch.zeros(shape))


@both
def test_they_are_known_to_take_logits(loss: nn.Module) -> None:
    assert loss.takes.form == "logits"
