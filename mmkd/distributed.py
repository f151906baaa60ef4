"""Sums over the processes of a run that gradients pass through."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from mmkd.backward import at_end_of_backward

__all__ = [
    "all_reduce_sum",
    "average_after_backward",
    "average_gradients",
    "broadcast",
    "gathered",
    "is_synchronized",
    "rank",
]


def is_synchronized(sync: bool | None) -> bool:
    """Whether statistics span processes: ``None`` follows the run, ``True`` needs one.

    Raises:
        RuntimeError: ``sync`` is True and no process group exists.
    """
    available = dist.is_available() and dist.is_initialized()
    if sync and not available:
        raise RuntimeError("sync=True needs an initialised process group; use sync=None")
    return available and dist.get_world_size() > 1 and sync is not False


def rank() -> int:
    """This process's number; 0 where there is one."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


class _AllReduceSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        # Every rank's loss depends on every rank's input.
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def all_reduce_sum(x: Tensor) -> Tensor:
    """The sum of ``x`` over all processes; its gradient is the sum of theirs.

    With DistributedDataParallel, which averages gradients, a loss computed from such sums on
    every rank has exactly the gradient of one process on the joined batch.
    """
    return _AllReduceSum.apply(x)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Averages the gradients that exist over all processes; the same ones must exist on each."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    offset = 0
    for gradient in gradients:
        gradient.copy_(flat[offset : offset + gradient.numel()].view_as(gradient))
        offset += gradient.numel()


def gathered(x: Tensor) -> Tensor:
    """The rows of all processes, ``[P N, ...]``, in the order of their numbers; without gradient.

    Args:
        x: ``[N, ...]``, the same N everywhere.
    """
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x.detach().contiguous())
    return torch.cat(parts)


def broadcast(module: nn.Module) -> None:
    """Gives every process the first one's parameters and buffers."""
    for value in module.state_dict().values():
        dist.broadcast(value, src=0)


def average_after_backward(parameters: Sequence[nn.Parameter]) -> None:
    """Averages these parameters' gradients over all processes at the end of each backward pass.

    What DistributedDataParallel does for a model, for parameters that it does not know. Averaging
    gradients that are accumulated again changes nothing in what was averaged before.

    Args:
        parameters: The same on every process; all or none of them get a gradient in a pass. The
            averaging lasts as long as they do.
    """
    ask = at_end_of_backward(lambda: average_gradients(parameters))
    for parameter in parameters:
        parameter.register_post_accumulate_grad_hook(lambda parameter: ask())
