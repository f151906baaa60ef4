"""Fixtures around MMEngine's own Runner."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from yapf.yapflib import yapf_api

from mmkd.data import make_digits

# The shared modules beside these tests, whatever pytest's import mode.
sys.path.append(str(Path(__file__).parent))
from toy import write_teacher

FormatCode = yapf_api.FormatCode


@pytest.fixture(scope="session", autouse=True)
def quick_runs() -> Iterator[None]:
    """One thread, as the bits of two runs are compared; no yapf, half of a small run's time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yapf_api, "FormatCode", lambda text, **kwargs: (text, False))
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def formatting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Configs are printed through yapf, as outside these tests."""
    monkeypatch.setattr(yapf_api, "FormatCode", FormatCode)


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The ``teacher`` setting of a toy teacher that preprocesses as the student does."""
    return write_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny digits detection set."""
    return make_digits(
        tmp_path_factory.mktemp("digits"), num_train=12, num_val=4, image_size=64, max_digits=4
    )
