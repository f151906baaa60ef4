"""CRD against loops: its contrast, its banks, its other images."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mmkd.distillers import CRDDistiller
from mmkd.distillers.crd import contrast, drawn_negatives
from mmkd.targets import Targets


def crd(**settings: Any) -> CRDDistiller:
    return CRDDistiller(3, 5, num_images=8, negatives=4, width=6, **settings).double()


def batch(seed: int = 0, positions: tuple[int, ...] = (1, 6)) -> tuple[Tensor, Tensor, Targets]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (
        torch.randn(len(positions), width, 2, 2, generator=generator, dtype=torch.float64)
        for width in (3, 5)
    )
    indices = torch.tensor(positions)
    return student, teacher, Targets((8, 8), indices=indices, labels=indices % 2)


@given(seed=st.integers(0, 2**16), images=st.integers(1, 3), others=st.integers(1, 4))
def test_contrast_against_loops(seed: int, images: int, others: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(images, 1 + others, generator=generator, dtype=torch.float64)
    total = 0.0
    for row in logits.tolist():
        h = [math.exp(x) / (math.exp(x) + others / 10) for x in row]
        total -= math.log(h[0]) + sum(math.log(1 - value) for value in h[1:])
    assert contrast(logits, 10).item() == pytest.approx(total / images, rel=1e-9)


def test_contrast_by_hand_and_at_its_ends() -> None:
    # One of two images as the other: h = 1 / (1 + 1/2) of both, 2/3 and 1/3.
    assert contrast(torch.zeros(1, 2), 2).item() == pytest.approx(-math.log(2 / 9))
    far = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    value = contrast(far, 2)
    value.backward()
    assert value.item() == pytest.approx(1e4, rel=1e-3)
    assert far.grad is not None and torch.isfinite(far.grad).all()


@given(seed=st.integers(0, 2**16))
def test_exact_negatives_are_every_image_of_other_classes(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, 3, (10,), generator=generator)
    labels[0] = 3
    own = torch.arange(3)
    draws = ((torch.arange(200) + 0.5) / 200).repeat(3, 1)
    found = drawn_negatives(draws, labels, own)
    for label, row in zip(own.tolist(), found.tolist(), strict=True):
        counts = [row.count(i) for i in range(10)]
        allowed = [i for i in range(10) if labels[i] != label]
        # All of them, each as often as any other; -1 is not known yet, and so of another class.
        assert {i for i, count in enumerate(counts) if count} == set(allowed)
        assert max(counts) - min(counts[i] for i in allowed) <= 1
    anything = drawn_negatives(draws, labels, None)
    assert set(anything[0].tolist()) == set(range(10))


def test_where_there_is_one_class_any_image_is_drawn() -> None:
    draws = torch.tensor([[0.0, 0.3, 0.6, 0.99]]).repeat(2, 1)
    labels = torch.full((4,), 2)
    found = drawn_negatives(draws, labels, torch.tensor([2, 0]))
    assert found.tolist() == [[0, 1, 2, 3]] * 2
    distiller = crd()
    student, teacher, targets = batch(positions=tuple(range(8)))
    targets = Targets((8, 8), indices=targets.indices, labels=torch.zeros(8, dtype=torch.int64))
    for _ in range(2):
        assert torch.isfinite(distiller(student, teacher, targets))
    assert not distiller.labels.any()


def test_two_steps_against_loops() -> None:
    distiller = crd()
    start = copy.deepcopy(distiller)
    student, teacher, targets = batch()
    values = [distiller(student, teacher, targets).item() for _ in range(2)]
    banks = [start.student_bank.clone(), start.teacher_bank.clone()]
    layers = [start.student_embedding, start.teacher_embedding]
    labels, log_z, draws = torch.full((8,), -1), None, start.draws
    embedded = []
    for layer, feature in zip(layers, (student, teacher), strict=True):
        rows = feature.mean(dim=(2, 3)) @ layer.weight.T + layer.bias
        embedded.append(rows / rows.norm(dim=1, keepdim=True))
    for value in values:
        others = drawn_negatives(draws((2, 4), torch.device("cpu")), labels, targets.labels)
        logits = []
        for side in (0, 1):
            rows = []
            for i, position in enumerate((1, 6)):
                seen = [position, *others[i].tolist()]
                rows.append([float(embedded[side][i] @ banks[1 - side][j]) / 0.07 for j in seen])
            logits.append(torch.tensor(rows, dtype=torch.float64))
        if log_z is None:
            log_z = [math.log(8 * float(each.exp().mean())) for each in logits]
        expected = sum(contrast(x - z, 8).item() for x, z in zip(logits, log_z, strict=True))
        assert value == pytest.approx(expected, rel=1e-5)
        for bank, seen in zip(banks, embedded, strict=True):
            for i, position in enumerate((1, 6)):
                moved = 0.5 * bank[position] + 0.5 * seen[i]
                bank[position] = moved / moved.norm()
                labels[position] = int(targets.labels[i])
    torch.testing.assert_close(distiller.student_bank, banks[0])
    torch.testing.assert_close(distiller.teacher_bank, banks[1])
    assert torch.equal(distiller.labels, labels)


def test_a_temperature_at_which_powers_overflow() -> None:
    distiller = crd(temperature=1e-3).float()
    student, teacher, targets = batch()
    student = student.float().requires_grad_()
    value = distiller(student, teacher.float(), targets)
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(distiller.log_z).all()
    assert student.grad is not None and torch.isfinite(student.grad).all()


def test_a_resumed_run_goes_on_to_the_bit() -> None:
    distiller, other = crd(), crd()
    student, teacher, targets = batch()
    for _ in range(2):
        distiller(student, teacher, targets)
    other.load_state_dict(distiller.state_dict())
    values = [each(student, teacher, targets) for each in (distiller, other)]
    assert torch.equal(*values)


def test_gradients() -> None:
    distiller = crd(exact=False).eval()
    student, teacher, targets = batch()
    distiller.log_z.fill_(2.0)

    def value(student: Tensor) -> Tensor:
        distiller.draws.load_state_dict(dict(calls=torch.zeros((), dtype=torch.int64)))
        return distiller(student, teacher, targets)

    assert torch.autograd.gradcheck(value, student.requires_grad_())
    teacher.requires_grad_()
    distiller(student, teacher, targets).backward()
    assert teacher.grad is None
    assert all(p.grad is not None and p.grad.any() for p in distiller.parameters())


def test_what_does_not_train_moves_no_bank() -> None:
    distiller = crd().eval()
    before = distiller.student_bank.clone()
    distiller(*batch())
    assert torch.equal(distiller.student_bank, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_one_image(dtype: torch.dtype) -> None:
    distiller = crd().float()
    student, teacher, targets = batch(positions=(3,))
    student = student.to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = distiller(student, teacher.to(dtype), targets)
    assert value.dtype == torch.float32
    value.backward()
    assert student.grad is not None and torch.isfinite(student.grad).all()


def test_it_tells_images_apart_after_some_steps() -> None:
    distiller = crd(exact=False, seed=1)
    student, teacher, targets = batch(positions=(0, 1, 2, 3, 4, 5, 6, 7))
    optimizer = torch.optim.Adam(distiller.parameters(), 0.05)
    values = []
    for _ in range(60):
        value = distiller(student, teacher, targets)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert sum(values[-5:]) < 0.5 * sum(values[:5])


def test_mistakes() -> None:
    student, teacher, _ = batch()
    with pytest.raises(ValueError, match=r"num_images is 8, and a batch holds .* position 8"):
        crd(exact=False)(student, teacher, Targets((8, 8), indices=torch.tensor([0, 8])))
    with pytest.raises(ValueError, match=r"num_images is 8, and a batch holds .* position -1"):
        crd(exact=False)(student, teacher, Targets((8, 8), indices=torch.tensor([-1, 8])))
    with pytest.raises(ValueError, match="CRDDistiller needs what the images show"):
        crd()(student, teacher)
    with pytest.raises(ValueError, match="asks for image indices"):
        crd(exact=False)(student, teacher, Targets((8, 8)))
    with pytest.raises(ValueError, match="momentum must be 0 or more and below 1, got 1"):
        crd(momentum=1.0)
    with pytest.raises(ValueError, match="negatives must be a positive integer, got 0"):
        CRDDistiller(3, 5, num_images=8, negatives=0)
