"""What a Runner's checkpoint leaves out and an exact resume needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, distributed, nn

from mmkd.engine.mmengine.models import unwrapped
from mmkd.engine.random_state import random_state, set_random_state

__all__ = ["TrainingState"]


class TrainingState:
    """Random states, gradients that wait for a step, and what processes do not have in common.

    It is kept in each checkpoint and put back as training goes on. A hook tells it when a
    validation begins (:meth:`note_validation`) and when an iteration or epoch is about to train
    (:meth:`note_training`), since the draws of both lie between what is saved and what is resumed.
    """

    def __init__(self) -> None:
        self._resumed: dict[str, Any] | None = None
        self._validated = False
        self._others: list[dict[str, Any]] = []
        self._gathered_at: int | None = None

    def gather(self, runner: Runner, modules: Sequence[nn.Module]) -> None:
        """Brings together what the other processes hold, for the first, which saves.

        Args:
            runner: In training; all processes are at the same place.
            modules: Trained; what their buffers hold of a process's own batches is kept too.
        """
        if runner.world_size == 1:
            return
        own = dict(**_own_state(runner), buffers=[b.cpu() for b in _buffers(runner, modules)])
        states: list[Any] = [None] * runner.world_size
        distributed.gather_object(own, states if runner.rank == 0 else None)
        if runner.rank == 0:
            self._others = [_less_what_is_equal(each, own["buffers"]) for each in states[1:]]
            self._gathered_at = runner.iter

    def state(self, runner: Runner) -> dict[str, Any]:
        """To be saved: plain values and tensors."""
        state = dict(**_own_state(runner), validated=self._validated)
        if self._gathered_at == runner.iter:
            state["others"] = self._others
        return state

    def resume(self, state: Mapping[str, Any], runner: Runner) -> None:
        """Takes what a checkpoint holds, for :meth:`go_on`."""
        others = state.get("others", [])
        if len(others) + 1 != runner.world_size:
            runner.logger.warning(
                f"the checkpoint holds the random states of {len(others) + 1} of now "
                f"{runner.world_size} processes: the run that is resumed will not be repeated "
                "exactly"
            )
        if runner.rank == 0:
            self._resumed = dict(state)
        elif runner.rank <= len(others):
            self._resumed = dict(others[runner.rank - 1], validated=state["validated"])

    def note_validation(self) -> None:
        """What is saved next has the validation's draws behind it."""
        self._validated = True

    def note_training(self) -> None:
        """What is saved next comes before a validation."""
        self._validated = False

    def go_on(self, runner: Runner, done: int, modules: Sequence[nn.Module] = ()) -> None:
        """Puts the resumed state back, once.

        Args:
            runner: About to train.
            done: Epochs, or iterations of a loop that counts these, that are over.
            modules: As they were given to :meth:`gather`.
        """
        if self._resumed is None:
            return
        state, self._resumed = self._resumed, None
        _set_gradients(runner, state.get("gradients", []))
        for own, buffer in zip(_buffers(runner, modules), state.get("buffers", []), strict=False):
            if buffer is not None:
                own.copy_(buffer)
        set_random_state(state["random_state"])
        validates = (
            runner.val_loop is not None
            and done >= runner.val_begin
            and done % runner.val_interval == 0
        )
        if validates and not state["validated"]:
            # The validation that followed the checkpoint has drawn its data loader's seed.
            torch.empty((), dtype=torch.int64).random_()


def _own_state(runner: Runner) -> dict[str, Any]:
    return dict(random_state=random_state(), gradients=_gradients(runner))


def _wrappers(runner: Runner) -> Iterator[OptimWrapper]:
    several = not isinstance(runner.optim_wrapper, OptimWrapper)
    yield from runner.optim_wrapper.values() if several else [runner.optim_wrapper]


def _parameters(wrapper: OptimWrapper) -> list[nn.Parameter]:
    return [each for group in wrapper.optimizer.param_groups for each in group["params"]]


def _gradients(runner: Runner) -> list[list[Tensor | None]]:
    """Of each optimizer: those that are accumulated, where it waits for more before its step."""
    return [
        []
        if wrapper.should_update()
        else [None if each.grad is None else each.grad.cpu() for each in _parameters(wrapper)]
        for wrapper in _wrappers(runner)
    ]


def _set_gradients(runner: Runner, saved: Sequence[Sequence[Tensor | None]]) -> None:
    for wrapper, gradients in zip(_wrappers(runner), saved, strict=False):
        parameters = _parameters(wrapper)
        # Otherwise other parameters are trained now, or steps are made at other places.
        if wrapper.should_update() or len(gradients) != len(parameters):
            continue
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient.to(parameter.device, copy=True)
        runner.logger.info("the gradients that waited for the next step are taken from the file")


def _buffers(runner: Runner, modules: Sequence[nn.Module]) -> list[Tensor]:
    model = unwrapped(runner.model)
    return [buffer for module in (model, *modules) for buffer in module.buffers()]


def _less_what_is_equal(state: dict[str, Any], buffers: Sequence[Tensor]) -> dict[str, Any]:
    pairs = zip(state["buffers"], buffers, strict=True)
    return {**state, "buffers": [None if torch.equal(a, b) else a for a, b in pairs]}
