"""PKD: Cao et al., *General Distillation Framework for Object Detectors via Pearson Correlation
Coefficient* (NeurIPS 2022)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist

from mmkd.distributed import all_reduce_sum, is_synchronized
from mmkd.losses.base import Loss, Takes
from mmkd.numerics import at_least_float32, check_maps
from mmkd.registry import MODELS

__all__ = ["PKDLoss", "pkd"]

_AXES = (0, 2, 3)


def pkd(student: Tensor, teacher: Tensor, eps: float = 1e-6, sync: bool | None = None) -> Tensor:
    """``1/2 mean (s' - t')^2``, ``x' = (x - mean) / (std + eps)`` per channel over N, H and W.

    But for eps it is 1 less the mean over channels of Pearson's correlation, since
    mean and (biased) std are the batch's own.

    Args:
        student, teacher: Maps ``[N, C, H, W]``.
        eps: Added to the standard deviation, above 0.
        sync: Whether the batch spans all processes; None follows the run.

    Returns:
        A scalar in [0, 2], float32 at least, with finite gradient for constant channels too.

    Raises:
        ValueError: Shapes differ, are empty or not of rank 4; a single location, which has no
            standard deviation; eps out of range.
    """
    _check(eps)
    check_maps(student, teacher)
    synchronized = is_synchronized(sync)
    count = torch.tensor(float(student[:, 0].numel()), device=student.device)
    count = all_reduce_sum(count) if synchronized else count
    if student[:, 0].numel() < 2 and count < 2:
        raise ValueError(
            "PKDLoss needs 2 locations or more, got 1: take a finer level or a larger batch"
        )
    pair = (_standardized(x, count, eps, synchronized) for x in (student, teacher))
    total = torch.sub(*pair).square().sum()
    # Shares of the batch may differ in size: one mean over all of it.
    total = all_reduce_sum(total) if synchronized else total
    return total / (2 * count * student.shape[1])


def _check(eps: float) -> None:
    if not eps > 0:
        raise ValueError(f"eps must be above 0, got {eps}")


def _standardized(x: Tensor, count: Tensor, eps: float, synchronized: bool) -> Tensor:
    x = at_least_float32(x)
    # In units of its largest entry no square overflows; the result has no unit.
    unit = x.detach().abs().amax(dim=_AXES, keepdim=True).clamp_min(1)
    if synchronized:
        dist.all_reduce(unit, op=dist.ReduceOp.MAX)
    x = x / unit

    def mean(values: Tensor) -> Tensor:
        total = values.sum(dim=_AXES, keepdim=True)
        return (all_reduce_sum(total) if synchronized else total) / count

    centred = x - mean(x)
    variance = mean(centred.square())
    # Away from 0, where the square root's gradient is infinite.
    is_constant = variance == 0
    deviation = variance.masked_fill(is_constant, 1).sqrt().masked_fill(is_constant, 0)
    return centred / (deviation + (eps / unit).clamp_min(torch.finfo(x.dtype).tiny))


@MODELS.register_module()
class PKDLoss(Loss):
    """:func:`pkd` as a module. The paper's weight on Faster R-CNN's pyramid is 6.

    It standardises both sides itself, as published; the normalizer beside it stays the identity.

    Args:
        eps: Added to the standard deviation.
        sync: Whether the batch spans all processes; None follows the run.

    Shapes: ``[N, C, H, W]`` and ``[N, C, H, W]`` to a scalar.

    Raises:
        ValueError: eps of 0 or less; shapes that differ, are empty or not of rank 4; a single
            location.
    """

    takes = Takes(form="maps")

    def __init__(self, eps: float = 1e-6, *, sync: bool | None = None) -> None:
        super().__init__()
        _check(eps)
        self.eps, self.sync = eps, sync

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return pkd(student, teacher, self.eps, self.sync)
