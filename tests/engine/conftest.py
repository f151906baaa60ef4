"""Fixtures around MMEngine's own Runner."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from yapf.yapflib import yapf_api

from mmkd.data import make_digits

# The shared modules beside these tests, whatever pytest's import mode.
sys.path.append(str(Path(__file__).parent))
from toy import write_teacher

FormatCode = yapf_api.FormatCode


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
