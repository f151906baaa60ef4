"""Packages as if they were not installed, in a process of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

_HIDE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
"""


def run_without(packages: Sequence[str], code: str) -> str:
    """What code prints where some packages cannot be imported."""
    command = [sys.executable, "-c", _HIDE.format(packages=tuple(packages)) + code]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
