"""The LogSum soft maximum of Miles & Mikolajczyk (arXiv 2303.11098), Eq. (12)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch import distributed as dist

from mmkd.distributed import all_reduce_sum, is_synchronized
from mmkd.losses.base import Loss
from mmkd.numerics import at_least_float32, check_pair, check_samples
from mmkd.registry import MODELS

__all__ = ["CorrelationLogSumLoss", "LogSumLoss", "correlation_logsum", "logsum"]


def _power(x: Tensor, alpha: float) -> Tensor:
    # Squares are several times faster than the general power, forward and backward.
    if alpha == 4:
        return x.square().square()
    return x.square() if alpha == 2 else x.abs().pow(alpha)


def _check(alpha: float, eps: float) -> None:
    if not 1 <= alpha < math.inf:
        raise ValueError(f"alpha must be 1 or more and finite, got {alpha}")
    if not 0 <= eps < math.inf:
        raise ValueError(f"eps must be 0 or more and finite, got {eps}")


def _log_sum_of_powers(
    x: Tensor, alpha: float, eps: float, *, unit: float = 1.0, synchronized: bool = False
) -> Tensor:
    """``log(sum |unit * x|^alpha + eps)`` without leaving the range of x's type on the way."""
    tiny = torch.finfo(x.dtype).tiny
    # The largest entry becomes 1, so that no power overflows and not all of them underflow.
    scale = x.detach().abs().amax().clamp_min(tiny)
    if synchronized:
        dist.all_reduce(scale, op=dist.ReduceOp.MAX)
    total = _power(x / scale, alpha).sum()
    if synchronized:
        total = all_reduce_sum(total)
    # Where all entries are 0, the clamp keeps the logarithm finite and its gradient 0.
    log_total = total.clamp_min(tiny).log() + alpha * (scale.log() + math.log(unit))
    if eps == 0:
        return log_total
    return torch.logaddexp(log_total, torch.full_like(log_total, math.log(eps)))


def logsum(
    student: Tensor,
    teacher: Tensor,
    alpha: float = 4.0,
    eps: float = 1e-12,
    sync: bool | None = None,
) -> Tensor:
    """``log(sum |s - t|^alpha + eps)`` over all entries, Eq. (12) with a guard against log 0.

    Args:
        student, teacher: Normalised features of one shape, any rank.
        alpha: Exponent, 1 or more.
        eps: Guard, 0 or more.
        sync: Whether the sum spans all processes; None follows the run.

    Returns:
        A scalar, float32 at least. Finite, with finite gradient, for equal features and for
        entries up to the largest value of their type (eps > 0).

    Raises:
        ValueError: Shapes differ or are empty; alpha or eps out of range.
    """
    _check(alpha, eps)
    check_pair(student, teacher)
    student, teacher = at_least_float32(student), at_least_float32(teacher)
    # Half the difference: float32's and bfloat16's largest values of either sign leave no range.
    half = torch.sub(student / 2, teacher, alpha=0.5)
    return _log_sum_of_powers(half, alpha, eps, unit=2.0, synchronized=is_synchronized(sync))


def correlation_logsum(
    student: Tensor,
    teacher: Tensor,
    alpha: float = 4.0,
    eps: float = 1e-5,
    sync: bool | None = None,
) -> Tensor:
    """``log(sum_j |c_j - 1|^alpha + eps)``, ``c_j = mean_i s_ij t_ij``.

    c_j is the correlation of channel j over the batch where both sides are batch-normalised;
    the form that the authors use for DeiT.

    Args:
        student, teacher: Batch-normalised samples ``[M, C]``.
        alpha: Exponent, 1 or more.
        eps: Guard, 0 or more.
        sync: Whether the batch spans all processes; None follows the run.

    Returns:
        A scalar, float32 at least.

    Raises:
        ValueError: Shapes differ, are empty or not of rank 2; alpha or eps out of range.
    """
    _check(alpha, eps)
    check_samples(student, teacher)
    products = (at_least_float32(student) * at_least_float32(teacher)).sum(dim=0)
    count = products.new_tensor(float(len(student)))
    if is_synchronized(sync):
        products, count = all_reduce_sum(products), all_reduce_sum(count)
    return _log_sum_of_powers(products / count - 1, alpha, eps)


@MODELS.register_module()
class LogSumLoss(Loss):
    """:func:`logsum` as a module.

    Args:
        alpha: Exponent; 4 to 5 is best in the paper's Table 2.
        eps: Guard against log 0.
        sync: Whether the sum spans all processes; None follows the run.

    Shapes: any two equal ones, usually ``[M, C]``, to a scalar.

    Raises:
        ValueError: alpha below 1, eps below 0; shapes that differ or are empty.
    """

    def __init__(self, alpha: float = 4.0, eps: float = 1e-12, *, sync: bool | None = None) -> None:
        super().__init__()
        _check(alpha, eps)
        self.alpha, self.eps, self.sync = alpha, eps, sync

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return logsum(student, teacher, self.alpha, self.eps, self.sync)


@MODELS.register_module()
class CorrelationLogSumLoss(Loss):
    """:func:`correlation_logsum` as a module.

    Args:
        alpha: Exponent.
        eps: Guard against log 0.
        sync: Whether the batch spans all processes; None follows the run.

    Shapes: batch-normalised ``[M, C]`` and ``[M, C]`` to a scalar.

    Raises:
        ValueError: alpha below 1, eps below 0; shapes that differ or are empty.
    """

    def __init__(self, alpha: float = 4.0, eps: float = 1e-5, *, sync: bool | None = None) -> None:
        super().__init__()
        _check(alpha, eps)
        self.alpha, self.eps, self.sync = alpha, eps, sync

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return correlation_logsum(student, teacher, self.alpha, self.eps, self.sync)
