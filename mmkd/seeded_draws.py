"""Random numbers of a training that leave every other draw of it as it is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmkd.distributed import rank

__all__ = ["SeededDraws"]


class SeededDraws(nn.Module):
    """Uniform numbers in [0, 1), others in every call and on every process.

    They depend on the seed, the process and how often it was called, which rides in the
    ``state_dict``: a resumed run draws what an uninterrupted one does.

    Args:
        seed: Of all draws.
    """

    calls: Tensor

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        # Known beside the buffer, since to read that of a GPU's would wait for it.
        self._known: int | None = 0
        self.register_load_state_dict_post_hook(_forget)

    def forward(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Draws of this shape."""
        if self._known is None:
            self._known = int(self.calls)
        generator = torch.Generator(device)
        generator.manual_seed(hash((self.seed, rank(), self._known)) % 2**63)
        self._known += 1
        self.calls += 1
        return torch.rand(shape, generator=generator, device=device)


def _forget(module: Any, incompatible: Any) -> None:
    module._known = None
