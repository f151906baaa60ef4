"""Ultralytics' trainer on two processes of one CPU; imported by the processes that it starts."""

from __future__ import annotations

import os
import sys
import time
import traceback
from datetime import timedelta
from typing import Any
from unittest.mock import MagicMock, patch

import torch
from torch import Tensor, nn
from torch import distributed as dist
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import LOCAL_RANK, RANK
from ultralytics.utils.torch_utils import unwrap_model

PROCESSES = 2


class OnCpu(nn.parallel.DistributedDataParallel):
    """Torch's wrapper without the device that the trainer gives it."""

    def __init__(self, module: nn.Module, device_ids: Any = None, **kwargs: Any) -> None:
        super().__init__(module, **kwargs)


class TwoProcesses(DetectionTrainer):
    """Does with two processes on the CPU what the stock trainer does with two GPUs.

    Each process leaves ``rank<n>.pt`` beside the run's folder: the weights before and after, and
    of each step the projector's gradients, its own and those it stepped with.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.world_size = PROCESSES
        self.ddp = LOCAL_RANK == -1
        self.own: dict[str, Tensor] = {}
        self.steps: list[dict[str, dict[str, Tensor]]] = []

    def train(self) -> None:
        """Ends a process that was started without a word to torch, which may wait for ever."""
        if self.ddp:
            super().train()
            return
        try:
            super().train()
            self._write()
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        sys.stdout.flush()
        os._exit(0)

    def _setup_ddp(self) -> None:
        dist.init_process_group(
            "gloo", rank=RANK, world_size=PROCESSES, timeout=timedelta(minutes=2)
        )

    def _setup_train(self) -> None:
        with patch.object(nn.parallel, "DistributedDataParallel", OnCpu):
            super()._setup_train()
        for name, parameter in self._projector().items():
            parameter.register_post_accumulate_grad_hook(
                lambda p, name=name: self.own.__setitem__(name, p.grad.clone())
            )
        self.initial = self._weights()

    def final_eval(self) -> None:
        """Without the validation, which looks for a GPU."""
        self.validator = MagicMock(return_value={})
        super().final_eval()

    def optimizer_step(self) -> None:
        stepped = {name: p.grad.clone() for name, p in self._projector().items()}
        self.steps.append(dict(own=dict(self.own), stepped=stepped))
        super().optimizer_step()

    def _projector(self) -> dict[str, nn.Parameter]:
        return dict(self.distillation.distillers.named_parameters())  # type: ignore[attr-defined]

    def _weights(self) -> dict[str, Tensor]:
        student = dict(unwrap_model(self.model).named_parameters())
        named = {**student, **{f"projector.{k}": p for k, p in self._projector().items()}}
        return {name: parameter.detach().clone() for name, parameter in named.items()}

    def _write(self) -> None:
        folder = self.save_dir.parent
        content = dict(
            initial=self.initial,
            final=self._weights(),
            steps=self.steps,
            loss=float(self.tloss["kd_loss"]),
            wrapped=isinstance(self.model, OnCpu),
        )
        torch.save(content, folder / f"rank{RANK}.part")
        (folder / f"rank{RANK}.part").rename(folder / f"rank{RANK}.pt")
        # The first to end would take the other with it.
        deadline = time.monotonic() + 120
        while not (folder / f"rank{1 - RANK}.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
