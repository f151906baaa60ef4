"""Fixtures around MMEngine's own Runner."""

from __future__ import annotations

from pathlib import Path

import pytest
from yapf.yapflib import yapf_api

from helpers.toy import write_teacher
from mmkd.data import make_digits

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
