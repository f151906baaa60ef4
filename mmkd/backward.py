"""The end of a backward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch

__all__ = ["at_end_of_backward"]


def at_end_of_backward(call: Callable[[], None]) -> Callable[[], None]:
    """What hooks call, as often as they like, to have ``call`` called once when the backward pass
    in which they run has ended.

    As DistributedDataParallel itself learns of that end: by then all of its own reductions are
    launched, so what follows is in the same place on every process, before clipping and before the
    optimizer's step.
    """
    asked_in = -1

    def ask() -> None:
        nonlocal asked_in
        # Once a pass; by its number, since one that fails never comes to its end.
        current = torch._C._current_graph_task_id()
        if current != asked_in:
            asked_in = current
            torch.autograd.Variable._execution_engine.queue_callback(call)

    return ask
