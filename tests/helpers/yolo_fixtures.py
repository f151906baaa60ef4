"""Fixtures around Ultralytics' own trainer, which these tests keep from the home and the net."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import pytest

# Before ultralytics is imported, and for the processes that tests start.
if "ultralytics" not in sys.modules:
    os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp(prefix="mmkd-yolo-")
    os.environ["YOLO_OFFLINE"] = "true"
    os.environ["YOLO_VERBOSE"] = "false"
from ultralytics.utils import USER_CONFIG_DIR

from helpers.yolo_toy import YOLOToy, make_toy


@pytest.fixture(scope="session", autouse=True)
def settings_folder() -> Iterator[Path]:
    """The folder that stands in for Ultralytics' own in the user's home."""
    assert USER_CONFIG_DIR.is_relative_to(tempfile.gettempdir()), (
        f"ultralytics was imported before these tests could keep it from {USER_CONFIG_DIR}"
    )
    # Ultralytics downloads this font wherever it is missing, to draw with.
    font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    shutil.copy(font, USER_CONFIG_DIR / "Arial.ttf")
    yield USER_CONFIG_DIR
    shutil.rmtree(os.environ["YOLO_CONFIG_DIR"], ignore_errors=True)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails the test if it looks for another machine, even where the error was swallowed."""
    attempts: list[Any] = []

    def refuse(*args: Any, **kwargs: Any) -> Any:
        attempts.append(args)
        raise OSError(f"a test must not reach the network, tried {args}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    yield
    assert attempts == []


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> YOLOToy:
    """A student's definition, a teacher's checkpoint and a digits set."""
    return make_toy(tmp_path_factory.mktemp("yolo"))
