"""What every test shares."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import settings

settings.register_profile("mmkd", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("mmkd")


@pytest.fixture
def untouched_random_state() -> Iterator[None]:
    """Fails the test if it draws from a global generator."""
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    python, numpy, state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    assert random.getstate() == python
    assert np.random.get_state()[2] == numpy[2]
    assert np.array_equal(np.random.get_state()[1], numpy[1])
    assert torch.equal(torch.get_rng_state(), state)
