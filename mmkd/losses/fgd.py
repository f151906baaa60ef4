"""FGD: Yang et al., *Focal and Global Knowledge Distillation for Detectors* (CVPR 2022)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from mmkd.attention_maps import channel_attention, spatial_attention
from mmkd.box_masks import background_scales, object_scales
from mmkd.initial_weights import initialize
from mmkd.losses.base import Loss, Takes
from mmkd.numerics import as_weights, at_least_float32, check_factors, check_maps, check_temperature
from mmkd.registry import MODELS
from mmkd.targets import Targets

__all__ = ["FGDLoss"]


@MODELS.register_module()
class FGDLoss(Loss):
    """Focal and global distillation of a map: inside and outside boxes, and its whole context.

    ``a sum M_fg A (s - t)^2 / N + b sum M_bg A (s - t)^2 / N
    + c (|A_S(s) - A_S(t)|_1 + |A_C(s) - A_C(t)|_1) / N + d sum (G_s(s) - G_t(t))^2 / N``

    with ``A = A_S(t) A_C(t)``, the teacher's attention over locations and channels
    (:mod:`mmkd.attention_maps`), ``M_fg`` and ``M_bg`` the scales inside and outside boxes
    (:mod:`mmkd.box_masks`), and G a global context block (Cao et al., GCNet, ICCV Workshops 2019)
    for either side, both trained. Eq. (6) to (14) of the paper.

    The defaults are the paper's for two-stage detectors; for one-stage ones 1e-3, 5e-4, 5e-4 and
    5e-6. The authors' program places boxes by each image's size without padding, which moves them
    on the map of a padded batch; here they are where the batch shows them.

    Args:
        num_channels: C, of both sides.
        foreground, background, attention, context: a, b, c, d, 0 or more.
        temperature: Of the attention, above 0.
        generator: Source of the context blocks' initial weights.

    Shapes: ``[N, C, H, W]`` and ``[N, C, H, W]`` with the boxes of N images to a scalar.

    Raises:
        ValueError: A factor or temperature out of range, a width of 1; shapes that differ, are
            empty or not of rank 4; a training whose batches hold no boxes.
    """

    takes = Takes(form="maps", targets=("boxes",))

    def __init__(
        self,
        num_channels: int,
        foreground: float = 5e-5,
        background: float = 2.5e-5,
        attention: float = 5e-5,
        context: float = 5e-7,
        temperature: float = 0.5,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_factors(
            foreground=foreground, background=background, attention=attention, context=context
        )
        check_temperature(temperature)
        self.foreground, self.background = foreground, background
        self.attention, self.context = attention, context
        self.temperature = temperature
        self.student_context = _GlobalContext(num_channels, generator)
        self.teacher_context = _GlobalContext(num_channels, generator)

    def forward(self, student: Tensor, teacher: Tensor, *, targets: Targets) -> Tensor:
        check_maps(student, teacher)
        student, teacher = at_least_float32(student), at_least_float32(teacher)
        total = self._focal(student, teacher, targets) + self._attentions(student, teacher)
        contexts = self.student_context(student) - self.teacher_context(teacher)
        return (total + self.context * contexts.square().sum()) / len(student)

    def _focal(self, student: Tensor, teacher: Tensor, targets: Targets) -> Tensor:
        grid = (student.shape[2], student.shape[3])
        inside = object_scales([each.corners for each in targets.boxes], grid, targets.size)
        scales = self.foreground * inside + self.background * background_scales(inside)
        where = spatial_attention(teacher, self.temperature) * scales[:, None]
        which = channel_attention(teacher, self.temperature)
        return (where * which * (student - teacher).square()).sum()

    def _attentions(self, student: Tensor, teacher: Tensor) -> Tensor:
        distances = [
            torch.sub(*(attention(x, self.temperature) for x in (student, teacher))).abs().sum()
            for attention in (spatial_attention, channel_attention)
        ]
        return self.attention * torch.stack(distances).sum()


class _GlobalContext(nn.Module):
    """``x + W_2 ReLU(LN(W_1 sum_hw softmax_hw(w x) x))``; the identity at first, for W_2 is 0."""

    def __init__(self, num_channels: int, generator: torch.Generator | None) -> None:
        super().__init__()
        if num_channels < 2:
            raise ValueError(f"FGDLoss needs 2 channels or more, got {num_channels}")
        inner = num_channels // 2
        self.pooling = nn.utils.skip_init(nn.Linear, num_channels, 1)
        self.squeeze = nn.utils.skip_init(nn.Linear, num_channels, inner)
        self.norm = nn.LayerNorm(inner)
        self.expand = nn.utils.skip_init(nn.Linear, inner, num_channels)
        initialize(self, generator)
        for parameter in self.expand.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        x = as_weights(self, x)
        cells = x.flatten(2).transpose(1, 2)
        context = (self.pooling(cells).softmax(dim=1) * cells).sum(dim=1)
        hidden = layer_norm(
            self.squeeze(context), self.norm.normalized_shape, self.norm.weight, self.norm.bias
        )
        return x + self.expand(hidden.relu())[:, :, None, None]
