"""The operators are tested through mmcv's public functions, on the stand-in."""

from __future__ import annotations

import pytest
import torch

import mmkd.ops

mmkd.ops.install()


@pytest.fixture(autouse=True)
def _stand_in() -> None:
    if not mmkd.ops.is_stand_in():
        pytest.skip("mmcv has its compiled extension here")


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    return request.param
