"""CWD against loops, and the properties of its distributions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from helpers.loss_references import cwd_by_loops
from mmkd.losses import CWDLoss
from mmkd.losses.cwd import cwd

seeds = st.integers(0, 2**16)
sizes = st.integers(1, 4)
temperatures = st.floats(0.3, 10)


def maps(*shape: int, seed: int = 0, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = scale * torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return student, teacher


@given(seed=seeds, n=sizes, c=sizes, h=sizes, w=sizes, temperature=temperatures)
def test_against_loops(seed: int, n: int, c: int, h: int, w: int, temperature: float) -> None:
    student, teacher = maps(n, c, h, w, seed=seed)
    expected = cwd_by_loops(student, teacher, temperature)
    value = CWDLoss(temperature)(student, teacher).item()
    assert value == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_value_by_hand() -> None:
    # Of two locations the student prefers the second 3 to 1, the teacher none.
    student = torch.tensor([0.0, math.log(3)]).reshape(1, 1, 1, 2)
    teacher = torch.full((1, 1, 1, 2), 7.0)
    kl = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert cwd(student, teacher).item() == pytest.approx(kl)
    # The other way around it would be another number.
    swapped = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert cwd(teacher, student).item() == pytest.approx(swapped)


@given(seed=seeds, temperature=temperatures)
def test_gradient_by_the_formula(seed: int, temperature: float) -> None:
    """T (p - q) / (N C): the distributions pull on each other."""
    student, teacher = maps(2, 3, 2, 4, seed=seed)
    cwd(student.requires_grad_(), teacher, temperature).backward()
    p, q = ((x / temperature).flatten(2).softmax(2).view_as(x) for x in (student, teacher))
    torch.testing.assert_close(student.grad, (temperature * (p - q) / 6).detach())


@given(seed=seeds)
def test_a_constant_added_to_a_channel_changes_nothing(seed: int) -> None:
    student, teacher = maps(2, 3, 2, 4, seed=seed)
    offset = torch.tensor([5.0, -3.0, 0.0]).double().view(1, 3, 1, 1)
    torch.testing.assert_close(cwd(student + offset, teacher), cwd(student, teacher))


def test_copies_of_the_batch_change_nothing() -> None:
    student, teacher = maps(2, 3, 2, 4)
    copies = (x.repeat(3, 2, 1, 1) for x in (student, teacher))
    torch.testing.assert_close(cwd(*copies), cwd(student, teacher))


@pytest.mark.parametrize("temperature", [0, -1, math.nan, math.inf])
def test_a_temperature_out_of_range(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be above 0 and finite, got '4'"):
        CWDLoss(temperature="4")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="temperature must be above 0 and finite, got"):
        CWDLoss(temperature)
