"""Random numbers of a training that leave every other draw of it as it is."""

from __future__ import annotations

import torch
from torch import Tensor

from mmkd.counted_calls import CountedCalls
from mmkd.distributed import rank

__all__ = ["SeededDraws"]


class SeededDraws(CountedCalls):
    """Uniform numbers in [0, 1), others in every call and on every process.

    They depend on the seed, the process and how often it was called, which rides in the
    ``state_dict``: a resumed run draws what an uninterrupted one does.

    Args:
        seed: Of all draws.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed

    def forward(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Draws of this shape."""
        generator = torch.Generator(device)
        generator.manual_seed(hash((self.seed, rank(), self.count())) % 2**63)
        return torch.rand(shape, generator=generator, device=device)
