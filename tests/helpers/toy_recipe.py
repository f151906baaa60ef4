"""A recipe that trains nothing: it counts, in a file, how often it was asked to."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mmkd.runs.fingerprint import ImageFiles
from mmkd.runs.recipe import Trained
from mmkd.runs.record import TrainingRecord


@dataclass(frozen=True)
class ToyRecipe:
    """Its score is the setting; a negative one fails."""

    folder: Path
    setting: float
    seed: int = 0
    iterations: int = 4

    @property
    def work_dir(self) -> Path:
        return self.folder / f"run_{self.setting:g}_seed{self.seed}"

    def content(self) -> dict[str, Any]:
        return dict(setting=self.setting)

    def files(self) -> dict[str, Path | ImageFiles]:
        return {"teacher": self.folder / "teacher.pth"}

    def train(self, on_iteration: Callable[[], None], record: TrainingRecord) -> Trained:
        with (self.work_dir / "calls").open("a") as stream:
            stream.write(f"{os.getpid()} {torch.get_num_threads()}\n")
        print("training")
        if self.setting < 0:
            raise RuntimeError("it failed")
        for _ in range(self.iterations):
            on_iteration()
        checkpoint = self.work_dir / "weights.pth"
        checkpoint.write_text("weights")
        return Trained(10, 1.5, str(checkpoint), {"top1": self.setting}, self.iterations)
