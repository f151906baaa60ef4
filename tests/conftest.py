"""What every test shares."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

# Before torch is imported, and for the processes that tests start: tests run side by side, and the
# bits of two runs are compared.
os.environ["OMP_NUM_THREADS"] = "1"
# The helpers are importable here by pytest's setting, and so they are there.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
)

import numpy as np
import pytest
import torch
from hypothesis import settings
from mmengine.device import utils as device_utils
from yapf.yapflib import yapf_api

# A shell ignores it for what runs in its background, and processes that tests start would too.
signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("mmkd", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("mmkd")


@pytest.fixture(scope="session", autouse=True)
def quick_runs() -> Iterator[None]:
    """Runners on one thread of the CPU; no yapf, which takes half of a small run's time."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_utils, "DEVICE", "cpu")
        patch.setattr(yapf_api, "FormatCode", lambda text, **kwargs: (text, False))
        yield


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
