"""One distillation term: a pair of features to a weighted scalar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.features import VIEWS, channels_of, pair_as_samples
from mmkd.registry import MODELS, build_part

__all__ = ["FeatureDistiller"]

Part = nn.Module | Mapping[str, Any]

_DEFAULTS: dict[str, Mapping[str, Any]] = {
    "projector": dict(type="mmkd.LinearProjector"),
    "normalizer": dict(type="mmkd.BatchNormalizer"),
    "loss": dict(type="mmkd.LogSumLoss"),
}


@MODELS.register_module()
class FeatureDistiller(nn.Module):
    """``weight * loss(normalize(project(s)), normalize(t))`` of a student and a teacher feature.

    The parts left out are Miles & Mikolajczyk's recipe: a linear projector, BatchNorm without
    affine parameters, LogSum with alpha 4. Normalizer and loss run outside autocast, in float32
    at least; the teacher's side is detached here and nowhere else.

    Args:
        student_channels: C_s. May be left out where every part is already built.
        teacher_channels: C_t, likewise.
        projector: A module or its config; None for the default.
        normalizer: A module or its config; None for the default. It serves both sides.
        loss: A module or its config; None for the default.
        view: ``'dense'`` (every location a sample) or ``'global'`` (pooled).
        weight: Factor of the result, 0 or more.
        seed: Of the projector's initial weights. The global random state is never used.

    Shapes: features ``[N, C]``, ``[N, C, H, W]`` or ``[N, L, C]`` of N images to a scalar.

    Raises:
        ValueError: An unknown view, a negative weight, channels missing for a part that is to
            be built; features of other channels, ranks or batch sizes.
        TypeError: A part that is neither a module nor a config.
    """

    def __init__(
        self,
        student_channels: int | None = None,
        teacher_channels: int | None = None,
        projector: Part | None = None,
        normalizer: Part | None = None,
        loss: Part | None = None,
        view: str = "dense",
        weight: float = 1.0,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if view not in VIEWS:
            raise ValueError(f"view must be one of {VIEWS}, got {view!r}")
        if not weight >= 0:
            raise ValueError(f"weight must be 0 or more, got {weight}")
        self.student_channels = student_channels
        self.teacher_channels = teacher_channels
        self.view = view
        self.weight = weight
        self.projector = build_part(
            projector if projector is not None else _DEFAULTS["projector"],
            in_channels=student_channels,
            out_channels=teacher_channels,
            generator=torch.Generator().manual_seed(seed),
        )
        self.normalizer = build_part(
            normalizer if normalizer is not None else _DEFAULTS["normalizer"],
            num_channels=teacher_channels,
        )
        self.loss = build_part(loss if loss is not None else _DEFAULTS["loss"])

    def forward(self, student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
        return self.weight * self.distance(student_feature, teacher_feature)

    def distance(self, student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
        """The term without its weight."""
        teacher_feature = teacher_feature.detach()
        for side, feature, channels in (
            ("student", student_feature, self.student_channels),
            ("teacher", teacher_feature, self.teacher_channels),
        ):
            if channels is not None and channels_of(feature) != channels:
                raise ValueError(
                    f"expected a {side} feature of {channels} channels, "
                    f"got shape {tuple(feature.shape)}"
                )
        if getattr(self.projector, "takes_maps", False):
            projected = self.projector(student_feature)
            student, teacher = pair_as_samples(projected, teacher_feature, self.view)
        else:
            student, teacher = pair_as_samples(student_feature, teacher_feature, self.view)
            student = self.projector(student)
        with torch.autocast(device_type=student.device.type, enabled=False):
            return self.loss(self.normalizer(student), self.normalizer(teacher))
