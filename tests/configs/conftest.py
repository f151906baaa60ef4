"""What the tests of configs and tools share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from yapf.yapflib import yapf_api

sys.path.append(str(Path(__file__).parent))  # for small_scale, whatever pytest's import mode


@pytest.fixture(scope="session", autouse=True)
def quick_runs() -> Iterator[None]:
    """One thread, as bits are compared; no yapf, half of a small run's time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yapf_api, "FormatCode", lambda text, **kwargs: (text, False))
        yield
    torch.set_num_threads(threads)
