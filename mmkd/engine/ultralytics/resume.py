"""Checkpoints of a distilled run: stock ones, from which the very same run goes on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import RANK
from ultralytics.utils.patches import torch_load
from ultralytics.utils.torch_utils import unwrap_model

from mmkd.distillation import Distillation
from mmkd.engine.random_state import random_state, set_random_state
from mmkd.errors import InputError

__all__ = ["CHECKPOINT_KEY", "ExactResume"]

CHECKPOINT_KEY = "mmkd"


class ExactResume(DetectionTrainer):
    """A trainer whose stopped run, taken up again, ends where it would have ended.

    Ultralytics' own checkpoint keeps the averaged weights in half precision, and neither the
    random states nor what gradient accumulation and mosaic carry over an epoch's end. An
    interrupted ``last.pt`` holds all of it under one more key, which a finished run drops.
    Everything else in the file is what a plain run would write; the optimizer's part holds the
    student's groups alone. With data loader workers, the draws of the augmentations do not
    repeat.
    """

    # None in a plain training.
    distillation: Distillation | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._resumed: dict[str, Any] | None = None
        self._own_groups = 0
        self._accumulate = 1
        self._carried_steps = 0
        self._last_step = -1
        self._epoch_begun = -1
        self._iteration = -1
        super().__init__(*args, **kwargs)
        if not self.ddp:
            self.add_callback("on_train_epoch_start", ExactResume._count_epoch)
            self.add_callback("on_train_batch_start", ExactResume._count_iteration)

    def add_groups(self, optimizer: torch.optim.Optimizer, groups: list[dict]) -> None:
        """Adds the distillers' groups, which stay out of the stock part of a checkpoint."""
        for group in groups:
            optimizer.add_param_group(group)
        self._own_groups = len(groups)

    # Saving -------------------------------------------------------------------------------

    def save_model(self) -> bool:
        """Saves as ever; ``last.pt`` appears at once, complete with the state for going on."""
        last = self.wdir / "last.pt"
        # Not last*.pt, of which Ultralytics takes the newest where it is to resume.
        part = last.with_name("part_of_last.pt")
        hook = self.optimizer.register_state_dict_post_hook(self._without_own_groups)
        self.last = part
        try:
            saved = super().save_model()
        finally:
            self.last = last
            hook.remove()
        if saved:
            _rewrite(part, last, {CHECKPOINT_KEY: self._state()})
            part.unlink()
        return saved

    def _without_own_groups(self, optimizer: Any, state: dict) -> dict:
        groups = state["param_groups"]
        groups = groups[: len(groups) - self._own_groups]
        ids = {index for group in groups for index in group["params"]}
        states = {index: value for index, value in state["state"].items() if index in ids}
        return {**state, "state": states, "param_groups": groups}

    def _state(self) -> dict[str, Any]:
        """All that the stock checkpoint leaves out, as tensors and plain values."""
        gradients = [p.grad for p in _parameters(self.optimizer)]
        return dict(
            distillers=self.distillation.state_dict() if self.distillation else {},
            model=unwrap_model(self.model).state_dict(),
            ema=self.ema.ema.state_dict(),
            optimizer=self.optimizer.state_dict(),
            gradients=gradients if any(g is not None for g in gradients) else None,
            last_step=self._last_step,
            mosaic_buffer=[int(i) for i in getattr(self.train_loader.dataset, "buffer", ())],
            random_state=random_state(),
        )

    def final_eval(self) -> None:
        """Makes ``last.pt`` a stock file before it is stripped and evaluated."""
        if RANK in {-1, 0} and self.last.exists():
            _rewrite(self.last, self.last, {CHECKPOINT_KEY: None})
        super().final_eval()

    # Going on -----------------------------------------------------------------------------

    def resume_training(self, ckpt: dict | None) -> None:
        """Puts back the exact weights where the stock trainer puts back rounded averages.

        Raises:
            ValueError: The checkpoint was written without distillation, or with other terms.
        """
        if ckpt is None or not self.resume:
            return
        if CHECKPOINT_KEY not in ckpt:
            raise InputError.at(
                "DistillCallback",
                f"{self.args.model} holds no state of a distillation. Resume from "
                "the last.pt of an interrupted distilled run; or start a new run from these "
                "weights, without resume",
            )
        super().resume_training(ckpt)
        self._resumed = state = ckpt[CHECKPOINT_KEY]
        self.optimizer.load_state_dict(state["optimizer"])
        unwrap_model(self.model).load_state_dict(state["model"])
        self.ema.ema.load_state_dict(state["ema"])

    def _load_checkpoint_state(self, ckpt: dict) -> None:
        """Also called where the stock trainer recovers from NaN."""
        state = ckpt[CHECKPOINT_KEY]
        if self.distillation is not None:
            self.distillation.load_state_dict(state["distillers"])
        # The student's as rounded as a plain run's; the projectors' groups come after them.
        whole = state["optimizer"]
        merged = {**whole, "state": {**whole["state"], **ckpt["optimizer"]["state"]}}
        super()._load_checkpoint_state({**ckpt, "optimizer": merged})

    def _model_train(self) -> None:
        """At the head of each epoch; in the first of a resumed run, the rest is put back here.

        Not earlier: data loaders and callbacks have drawn by now what the stopped run drew long
        before.
        """
        super()._model_train()
        if self._resumed is None:
            return
        state, self._resumed = self._resumed, None
        for parameter, gradient in zip(
            _parameters(self.optimizer), state["gradients"] or (), strict=False
        ):
            parameter.grad = None if gradient is None else gradient.to(parameter.device)
        self._last_step = state["last_step"]
        # The trainer counts from -1 again.
        self._carried_steps = self._last_step + 1
        for index in state["mosaic_buffer"]:
            self.train_loader.dataset.load_image(index)
        if self.train_loader.num_workers == 0:
            self._wind_forward()
        if RANK in {-1, 0}:  # the file's own; the other processes draw from their seeds
            set_random_state(state["random_state"])

    def _wind_forward(self) -> None:
        """Draws the order of the images of the epochs that are over."""
        loader = self.train_loader
        closing = max(self.epochs - self.args.close_mosaic, 0) if self.args.close_mosaic else -1
        for epoch in range(self.start_epoch):
            if epoch == closing:
                loader.reset()
            if loader.iterator is None:
                loader.iterator = loader._get_iterator()
            for _ in range(len(loader)):
                next(loader.iterator._sampler_iter)
        if 0 <= closing < self.start_epoch:
            # The trainer is about to close mosaic once more, and to reset the loader with it.
            loader.reset = lambda: loader.__dict__.pop("reset")

    # Gradient accumulation ----------------------------------------------------------------

    @property
    def accumulate(self) -> int:
        """Batches an optimizer step, while a resumed run's first step is due earlier by those
        that the stopped run had done."""
        return self._accumulate + self._carried_steps

    @accumulate.setter
    def accumulate(self, value: int) -> None:
        self._accumulate = value

    def _build_train_pipeline(self) -> None:
        # Out of memory, the trainer comes here again, reads accumulate, and sets it.
        self._carried_steps = 0
        super()._build_train_pipeline()

    def _count_iteration(self) -> None:
        self._iteration += 1

    def _count_epoch(self) -> None:
        self._iteration = self.epoch * len(self.train_loader) - 1
        if self._epoch_begun == self.epoch:
            # After an error that the trainer survives, it begins the epoch and its count again.
            self._last_step, self._carried_steps = -1, 0
        self._epoch_begun = self.epoch

    def optimizer_step(self) -> None:
        """Notes when it happened."""
        super().optimizer_step()
        self._last_step, self._carried_steps = self._iteration, 0


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _rewrite(source: Path, target: Path, changes: dict[str, Any]) -> None:
    """Writes a checkpoint with some keys changed (None: dropped); a kill leaves the old file."""
    content = {**torch_load(source, map_location="cpu"), **changes}
    written = target.with_suffix(".part")
    torch.save({k: v for k, v in content.items() if k not in changes or v is not None}, written)
    os.replace(written, target)
