"""Rules for a term's weight beside the gradient's share, to be compared on the proving ground."""

from __future__ import annotations

from typing import ClassVar
from weakref import WeakSet

import torch
from torch import Tensor

from mmkd.balance import Arrived, GradientShare, WeightRule
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


@MODELS.register_module(force=True)
class JointShare(GradientShare):
    """One weight for the terms of all levels, by their share of the gradient at all of them.

    Each level's own share gives little to one that the task hardly uses, where half of the gradient
    is little too. For a training alone in its process.
    """

    _all: ClassVar[WeakSet[JointShare]] = WeakSet()
    task: Tensor
    own: Tensor

    def __init__(self, share: float) -> None:
        super().__init__(share)
        self.register_buffer("task", torch.zeros(()))
        self.register_buffer("own", torch.zeros(()))
        self._all.add(self)

    @torch.no_grad()
    def observe(self, arrived: Arrived) -> None:
        self.task.copy_(arrived.task)
        self.own.copy_(arrived.own)
        task, own = (
            torch.stack([getattr(each, name) for each in self._all]).norm()
            for name in ("task", "own")
        )
        super().observe(arrived._replace(task=task, own=own))
