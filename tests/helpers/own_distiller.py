"""A term's own distiller: attention over levels, a module on the teacher's side, a memory bank."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from mmkd.distiller import Distiller
from mmkd.losses import Takes
from mmkd.registry import MODELS
from mmkd.targets import Targets

__all__ = ["Fusion", "FusionWithMemory"]


def _convolution(in_channels: int, out_channels: int, generator: torch.Generator) -> nn.Conv2d:
    layer = nn.utils.skip_init(nn.Conv2d, in_channels, out_channels, 1)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -0.3, 0.3, generator=generator)
    return layer


@MODELS.register_module()
class Fusion(Distiller):
    """Each level is fused with the coarser ones by an attention map; both sides are projected."""

    takes = Takes(form="maps", several_levels=True)

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        width: int = 5,
        weight: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__(weight)
        generator = torch.Generator().manual_seed(seed)
        self.student, self.teacher = (
            nn.ModuleList(_convolution(each, width, generator) for each in channels)
            for channels in (student_channels, teacher_channels)
        )
        self.attention = _convolution(2 * width, 2, generator)

    def distance(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], targets: Targets | None = None
    ) -> Tensor:
        fused, total = None, torch.zeros((), device=student[0].device)
        for index in reversed(range(len(student))):
            ours = self.student[index](student[index])
            if fused is not None:
                coarser = interpolate(fused, size=ours.shape[2:])
                shares = self.attention(torch.cat([ours, coarser], dim=1)).sigmoid()
                ours = ours * shares[:, :1] + coarser * shares[:, 1:]
            fused = ours
            difference = ours - self.teacher[index](teacher[index])
            total = total + difference.square().mean()
        return total


@MODELS.register_module()
class FusionWithMemory(Fusion):
    """Also keeps a running mean of every image's feature, by its position in the data set."""

    takes = Takes(form="maps", several_levels=True, targets=("indices",))

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        num_images: int,
        weight: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__(student_channels, teacher_channels, weight=weight, seed=seed)
        self.register_buffer("memory", torch.zeros(num_images, student_channels[-1]))

    def distance(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], targets: Targets | None = None
    ) -> Tensor:
        assert targets is not None
        pooled, indices = student[-1].mean(dim=(2, 3)), targets.indices
        apart = (pooled - self.memory[indices]).square().mean()
        self.memory[indices] = 0.5 * self.memory[indices] + 0.5 * pooled.detach()
        return super().distance(student, teacher) + apart
