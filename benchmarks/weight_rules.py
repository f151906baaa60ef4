"""Rules for a term's weight beside the gradient's share, to be compared on the proving ground."""

from __future__ import annotations

import torch
from torch import Tensor

from mmkd.balance import GradientShare, WeightRule
from mmkd.registry import MODELS


@MODELS.register_module(force=True)
class LossRatio(WeightRule):
    """``w = ratio * task / |distance|``: the term's value is a share of the task's loss.

    Args:
        ratio: Of the two values.
    """

    def __init__(self, ratio: float) -> None:
        super().__init__()
        self.ratio = ratio
        self.register_buffer("current", torch.zeros(()))

    @property
    def weight(self) -> Tensor:
        return self.current.clone()

    def begin(self, distance: Tensor, task: Tensor | None) -> None:
        assert task is not None, "needs a trainer that tells the task's loss"
        self.current.copy_(self.ratio * task / distance.abs().clamp_min(1e-6))


@MODELS.register_module(force=True)
class AgreeingShare(GradientShare):
    """A gradient's share of which the part against the task is taken out, feature by feature.

    PCGrad's projection (Yu et al., NeurIPS 2020), of the term's gradient alone: the task's stays.
    """

    def filtered(self, own: Tensor, task: Tensor) -> Tensor:
        against = (own * task).sum().clamp_max(0) / task.square().sum().clamp_min(1e-30)
        return own - against * task
