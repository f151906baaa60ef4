"""A teacher beside a student: it takes the student's batches, and is checked before training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmkd.engine.input_conversion import ImageFormat, InputConversion, image_sizes
from mmkd.features import find_module
from mmkd.teacher import LoadReport, Teacher, modules_that_run
from mmkd.terms import naming

__all__ = ["FrozenTeacher"]


class FrozenTeacher:
    """A frozen model that takes images as the student's trainer prepared them.

    Args:
        where: The setting that errors name.
        model: Any module.
        taps: The modules to tap, by the setting that names each.
        student_format: Of the images that will come.
        teacher_format: Of the images that ``model`` takes.
        device: Where to run.
        probe_size: Side in pixels of the blank image on which it is tried.
        forward: How to run ``model``; called as ``forward(model, inputs, context)``.
        dtype: In which to run; None: float32, or as the autocast around it says.

    Raises:
        ValueError: A tap that does not exist.
        RuntimeError: A tapped module does not run.
    """

    def __init__(
        self,
        where: str,
        model: nn.Module,
        taps: Mapping[str, str],
        student_format: ImageFormat,
        teacher_format: ImageFormat,
        *,
        device: torch.device,
        probe_size: int,
        forward: Callable[[nn.Module, Tensor, Any], Any] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        for key, path in taps.items():
            with naming(key):
                find_module(model, path)
        self.model = model.to(device, dtype)
        self._dtype = dtype
        self._teacher = Teacher(model, taps.values(), forward)
        self._convert = InputConversion(student_format, teacher_format)
        blank = torch.zeros(1, 3, probe_size, probe_size, device=device)
        with modules_that_run(model) as ran, naming(where):
            self.probed = self.features(blank)
        self.ran = ran
        self.loaded: LoadReport | None = None
        self.introduction = ""
        self._where = where

    def module(self, path: str) -> nn.Module:
        """A module of the teacher's, to be used beside its features.

        Raises:
            ValueError: There is none, or the checkpoint did not fill it.
        """
        module = find_module(self.model, path)
        if self.loaded is not None:
            inner = {f"{path}.{name}".strip(".") for name, _ in module.named_modules()}
            self.loaded.require(inner)
        return module

    def introduce(self, origin: str) -> None:
        """Logs what a user wants to know about it, and keeps it as :attr:`introduction`.

        Args:
            origin: What the network is and where it comes from.
        """
        total = sum(1 for _ in self.model.modules()) - 1
        self.introduction = (
            f"{self._where}: {origin}; "
            f"input {'as the student sees it' if self._convert.is_identity else 'converted'}; "
            f"runs {len(self.ran)} of {total} modules"
        )
        print_log(self.introduction, logger="current")

    def features(self, inputs: Tensor, context: Any = None) -> dict[str, Any]:
        """Tapped outputs for a batch in the student's format.

        Args:
            inputs: ``[N, 3, H, W]``.
            context: Data samples of the batch, where the trainer has them; they tell which part
                of each image is padding.
        """
        sizes = None if self._convert.is_identity else image_sizes(context)
        images = self._convert(inputs, sizes)
        if self._dtype is None:
            return self._teacher.features(images, context)
        with torch.autocast(inputs.device.type, enabled=False):
            return self._teacher.features(images.to(self._dtype), context)
