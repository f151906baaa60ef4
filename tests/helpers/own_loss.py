"""A user's own loss in a module outside mmkd, which is forgotten again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mmkd import custom_imports
from mmkd.registry import MODELS

OWN_LOSS = """
from torch import nn

from mmkd.registry import MODELS


@MODELS.register_module()
class OwnLoss(nn.Module):
    def forward(self, student, teacher):
        return (student - teacher).abs().sum() * 0 + 7
"""


def write_own_loss(file: Path) -> Path:
    """A module that registers ``mmkd.OwnLoss``, whose value is always 7."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(OWN_LOSS)
    return file


@contextmanager
def own_modules_in(folder: Path) -> Iterator[Path]:
    """The folder becomes the current one; what is imported from it is forgotten afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path])
        patch.setattr(custom_imports, "_imported", [])
        before = set(sys.modules)
        yield folder
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    MODELS.module_dict.pop("OwnLoss", None)
