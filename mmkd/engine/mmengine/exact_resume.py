"""What a Runner's checkpoint leaves out and an exact resume needs."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.runner import Runner

from mmkd.engine.random_state import random_state, set_random_state

__all__ = ["RandomStates"]


class RandomStates:
    """The global random states: kept in each checkpoint, and put back as training goes on.

    A hook tells it when a validation begins (:meth:`note_validation`) and when an iteration or
    epoch is about to train (:meth:`note_training`), since the draws of both lie between what is
    saved and what is resumed.
    """

    def __init__(self) -> None:
        self._resumed: dict[str, Any] | None = None
        self._validated = False

    def state(self) -> dict[str, Any]:
        """To be saved: plain values and tensors."""
        return dict(random_state=random_state(), validated=self._validated)

    def resume(self, state: dict[str, Any]) -> None:
        """Takes what a checkpoint holds, for :meth:`go_on`."""
        self._resumed = state

    def note_validation(self) -> None:
        """What is saved next has the validation's draws behind it."""
        self._validated = True

    def note_training(self) -> None:
        """What is saved next comes before a validation."""
        self._validated = False

    def go_on(self, runner: Runner, done: int) -> None:
        """Puts the resumed states back, once.

        Args:
            runner: About to train.
            done: Epochs, or iterations of a loop that counts these, that are over.
        """
        if self._resumed is None:
            return
        state, self._resumed = self._resumed, None
        set_random_state(state["random_state"])
        validates = (
            runner.val_loop is not None
            and done >= runner.val_begin
            and done % runner.val_interval == 0
        )
        if validates and not state["validated"]:
            # The validation that followed the checkpoint has drawn its data loader's seed.
            torch.empty((), dtype=torch.int64).random_()
