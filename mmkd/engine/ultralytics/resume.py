"""Checkpoints of a distilled run: stock ones, from which the very same run goes on."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.nn.tasks import torch_safe_load
from ultralytics.utils import LOCAL_RANK, LOGGER, RANK
from ultralytics.utils.torch_utils import torch_distributed_zero_first, unwrap_model

from mmkd.distillation import Distillation
from mmkd.engine.random_state import random_state, set_random_state
from mmkd.engine.same_teachers import check_same_teachers, digests_of
from mmkd.engine.ultralytics.arguments import check_data
from mmkd.engine.ultralytics.checkpoint_files import readable
from mmkd.engine.ultralytics.safe_start import SafeStart
from mmkd.errors import InputError, InputTypeError, MissingFileError

__all__ = ["CHECKPOINT_KEY", "ExactResume", "check_plain_resume", "check_resume", "read_checkpoint"]

CHECKPOINT_KEY = "mmkd"


def read_checkpoint(file: Path) -> dict[str, Any]:
    """A checkpoint's content.

    Raises:
        InputError: It is none, or damaged.
    """
    with readable(file):
        content, _ = torch_safe_load(file)
    if not isinstance(content, dict) or not {"epoch", "optimizer", "train_args"} <= set(content):
        raise InputError(f"{file} is no checkpoint that Ultralytics' trainer has written")
    return content


def check_resume(model: YOLO, resume: Any) -> None:
    """Raises where there is nothing to resume, which Ultralytics meets with another training: of
    the newest ``last.pt`` that it finds, or on a sample set that it downloads.

    Args:
        model: That is about to be trained.
        resume: As a user gave it: falsy, True for the model's own checkpoint, or a file.

    Raises:
        InputError: No checkpoint, or that of a finished run.
    """
    if not resume:
        return
    if resume is True:
        file, content = model.ckpt_path, model.ckpt
        if not content:
            raise InputError.at(
                "resume", "expected model=.../last.pt of a run that was stopped, found a definition"
            )
    elif isinstance(resume, str | Path):
        if not Path(resume).is_file():
            raise MissingFileError.at("resume", f"no such file: {resume}")
        file, content = resume, read_checkpoint(Path(resume))
    else:
        raise InputTypeError.at("resume", f"expected True or a file, got {resume!r}")
    if content.get("optimizer") is None or _is_trained(content):
        raise InputError.at(
            "resume",
            f"{file} is of a finished run, of which nothing is left to train. To train it further, "
            "start a new run from it: model=..., without resume",
        )
    # Whoever wrote the file wrote this too.
    check_data(content.get("train_args", {}).get("data"))


def check_plain_resume(model: YOLO, resume: Any) -> None:
    """Does so for a training without a teacher.

    Raises:
        InputError: Likewise; or the run that was stopped had one.
    """
    check_resume(model, resume)
    if not resume:
        return
    content = model.ckpt if resume is True else read_checkpoint(Path(resume))
    if content.get(CHECKPOINT_KEY, {}).get("teachers"):
        raise InputError.at(
            "teacher",
            "the run that is resumed has one, and would go on without it: give teacher=FILE; or "
            "start a new run from its weights, without resume",
        )


def _is_trained(content: dict[str, Any]) -> bool:
    """Whether a stock run's last epoch is in it; of other runs, the final evaluation is left."""
    epochs = content.get("train_args", {}).get("epochs", 0)
    return CHECKPOINT_KEY not in content and content.get("epoch", -1) + 1 >= epochs


class _TrainingIsOver(Exception):
    """Of a resumed run that was stopped in its final evaluation."""


class ExactResume(SafeStart):
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
    # Where the stock trainer writes its checkpoints, and what its loggers read.
    last: Path
    best: Path
    tloss: dict[str, Any] | None
    lr: dict[str, float]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._resumed: dict[str, Any] | None = None
        self._is_over = False
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

    @cached_property
    def _teachers(self) -> dict[str, str]:
        return digests_of(self.distillation.teachers) if self.distillation else {}

    def add_groups(self, optimizer: torch.optim.Optimizer, groups: list[dict]) -> None:
        """Adds the distillers' groups, which stay out of the stock part of a checkpoint."""
        for group in groups:
            optimizer.add_param_group(group)
        self._own_groups = len(groups)

    # Saving -------------------------------------------------------------------------------

    def save_model(self) -> bool:
        """Saves as ever; each file appears at once, ``last.pt`` complete with the state for going
        on."""
        last, best = self.last, self.best
        self.last, self.best = _part_of(last), _part_of(best)
        self.best.unlink(missing_ok=True)
        try:
            saved = self._save_stock_files()
            if saved:
                # best.pt first: from the last.pt before, the epoch would be trained again.
                if self.best.exists():
                    self.best.replace(best)
                _rewrite(self.last, last, {CHECKPOINT_KEY: self._state()})
                self.last.unlink()
        finally:
            self.last, self.best = last, best
        return saved

    def _save_stock_files(self) -> bool:
        hook = self.optimizer.register_state_dict_post_hook(self._without_own_groups)
        try:
            return super().save_model()
        finally:
            hook.remove()

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
            is_over=bool(self.stop),
            teachers=self._teachers,
            distillers=self.distillation.state_dict() if self.distillation else {},
            watch=self.distillation.watch.state_dict() if self.distillation else {},
            model=unwrap_model(self.model).state_dict(),
            ema=self.ema.ema.state_dict(),
            optimizer=self.optimizer.state_dict(),
            gradients=gradients if any(g is not None for g in gradients) else None,
            last_step=self._last_step,
            mosaic_buffer=[int(i) for i in getattr(self.train_loader.dataset, "buffer", ())],
            random_state=random_state(),
        )

    def final_eval(self) -> None:
        """Strips and evaluates copies of the checkpoints, which then take their places: whoever is
        stopped meanwhile resumes from what is still there."""
        whole = (self.best, self.last)
        parts = [_part_of(file) for file in whole]
        with torch_distributed_zero_first(LOCAL_RANK):
            if RANK in {-1, 0}:
                for file, part in zip(whole, parts, strict=True):
                    part.unlink(missing_ok=True)
                    if file.exists():
                        _rewrite(file, part, {CHECKPOINT_KEY: None})
        self.best, self.last = parts
        try:
            super().final_eval()
        finally:
            self.best, self.last = whole
        if RANK in {-1, 0}:
            # last.pt at the end: with it, the run is finished.
            for file, part in zip(whole, parts, strict=True):
                if part.exists():
                    part.replace(file)

    # Going on -----------------------------------------------------------------------------

    def resume_training(self, ckpt: dict | None) -> None:
        """Puts back the exact weights where the stock trainer puts back rounded averages.

        Raises:
            ValueError: The checkpoint was written without distillation, or with other terms or
                teachers.
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
        state = ckpt[CHECKPOINT_KEY]
        if self.distillation is not None:
            noted = state.get("teachers", {})
            check_same_teachers("DistillCallback teacher", noted, self._teachers)
        if RANK in {-1, 0}:
            _keep_epochs(self.csv, ckpt["epoch"] + 1)
        if state.get("is_over", ckpt["epoch"] + 1 >= self.epochs):
            self._load_checkpoint_state(ckpt)
            self.start_epoch, self.epoch = ckpt["epoch"] + 1, ckpt["epoch"]
            self._is_over = True
            return
        super().resume_training(ckpt)
        self._resumed = state
        self.optimizer.load_state_dict(state["optimizer"])
        unwrap_model(self.model).load_state_dict(state["model"])
        self.ema.ema.load_state_dict(state["ema"])

    def _setup_train(self) -> None:
        super()._setup_train()
        if self._is_over:
            raise _TrainingIsOver

    def _do_train(self) -> None:
        """Trains; of a run that was stopped in its final evaluation, does what is missing."""
        try:
            super()._do_train()
        except _TrainingIsOver:
            LOGGER.info(f"All {self.start_epoch} epochs are trained: the final evaluation is left")
            # Loggers read these after every evaluation.
            self.tloss, self.lr = {}, {}
            self.final_eval()
            if RANK in {-1, 0}:
                if self.args.plots:
                    self.plot_metrics()
                self.run_callbacks("on_train_end")

    def _load_checkpoint_state(self, ckpt: dict) -> None:
        """Also called where the stock trainer recovers from NaN."""
        state = ckpt[CHECKPOINT_KEY]
        if self.distillation is not None:
            self.distillation.load_state_dict(state["distillers"])
            self.distillation.watch.load_state_dict(state.get("watch"))
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


def _part_of(file: Path) -> Path:
    """Beside a file that is being written. Not last*.pt, of which Ultralytics takes the newest
    where it is to resume."""
    return file.with_name(f"part_of_{file.name}")


def _keep_epochs(results: Path, epochs: int) -> None:
    """Takes from ``results.csv`` what a run wrote after the checkpoint from which it goes on."""
    if not results.is_file():
        return
    header, *rows = results.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
    # Of a row that a kill has cut short, the number may be as well.
    whole = [row for row in rows if row.count(",") == header.count(",") and row.endswith("\n")]
    kept = [row for row in whole if int(row.partition(",")[0]) <= epochs]
    part = _part_of(results)
    part.write_text("".join([header, *kept]), encoding="utf-8")
    part.replace(results)


def _rewrite(source: Path, target: Path, changes: dict[str, Any]) -> None:
    """Writes a checkpoint with some keys changed (None: dropped); a kill leaves the old file."""
    with readable(source):
        content = {**torch_safe_load(source)[0], **changes}
    written = target.with_suffix(".part")
    torch.save({k: v for k, v in content.items() if k not in changes or v is not None}, written)
    os.replace(written, target)
