"""How often something was done in a training, across its stops."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["CountedCalls"]


class CountedCalls(nn.Module):
    """A number that rides in the ``state_dict``."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        # Known beside the buffer, since to read that of a GPU's would wait for it.
        self._known: int | None = 0
        self.register_load_state_dict_post_hook(_forget)

    def so_far(self) -> int:
        """The number."""
        if self._known is None:
            self._known = int(self.calls)
        return self._known

    def count(self) -> int:
        """The number, and one more from here on."""
        found = self.so_far()
        self._known = found + 1
        self.calls += 1
        return found


def _forget(module: Any, incompatible: Any) -> None:
    module._known = None
