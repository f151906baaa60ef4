"""Draws that leave every other one as it is, and go on where they stopped."""

from __future__ import annotations

import copy

import torch

from mmkd.seeded_draws import SeededDraws

CPU = torch.device("cpu")


def draw(draws: SeededDraws) -> torch.Tensor:
    return draws((1000,), CPU)


def test_every_call_and_seed_has_its_own() -> None:
    draws, other = SeededDraws(0), SeededDraws(1)
    first, second = draw(draws), draw(draws)
    assert not torch.equal(first, second) and not torch.equal(first, draw(other))
    assert torch.equal(first, draw(SeededDraws(0)))
    assert 0 <= first.min() and first.max() < 1 and abs(first.mean() - 0.5) < 0.05


def test_the_global_state_stays() -> None:
    before = torch.get_rng_state()
    draw(SeededDraws(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_resumed_one_goes_on() -> None:
    draws = SeededDraws(5)
    for _ in range(3):
        draw(draws)
    resumed = SeededDraws(5)
    resumed.load_state_dict(copy.deepcopy(draws.state_dict()))
    assert torch.equal(draw(resumed), draw(draws))
    assert torch.equal(draw(resumed), draw(draws))
