"""One distillation term: a pair of features to a weighted scalar."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.features import VIEWS, channels_of, pair_as_samples, without_extra_tokens
from mmkd.registry import MODELS, build_part

__all__ = ["FeatureDistiller"]

Part = nn.Module | Mapping[str, Any]

_LOSS = dict(type="mmkd.LogSumLoss")
_OF_FEATURES = dict(
    projector=dict(type="mmkd.LinearProjector"), normalizer=dict(type="mmkd.BatchNormalizer")
)
# Logits share their meaning, class by class: they are compared as they are.
_OF_LOGITS = dict(
    projector=dict(type="mmkd.IdentityProjector"), normalizer=dict(type="mmkd.IdentityNormalizer")
)


@MODELS.register_module()
class FeatureDistiller(nn.Module):
    """``weight * loss(normalize(project(s)), normalize(t))`` of a student and a teacher feature.

    The parts left out are Miles & Mikolajczyk's recipe: a linear projector, BatchNorm without
    affine parameters, LogSum with alpha 4; with a loss on logits, neither projector nor normalizer.
    Normalizer and loss run outside autocast, in float32 at least; the teacher's side is detached
    here and nowhere else.

    Args:
        student_channels: C_s. May be left out where every part is already built.
        teacher_channels: C_t, likewise.
        projector: A module or its config; None for the default.
        normalizer: A module or its config; None for the default. It serves both sides.
        loss: A module or its config; None for the default.
        view: ``'dense'`` (every location a sample) or ``'global'`` (pooled).
        weight: Factor of the result, 0 or more.
        student_extra_tokens, teacher_extra_tokens: Leading tokens of ``[N, L, C]`` that stand for
            no patch (class, distillation); left out.
        student_classifier, teacher_classifier: For a loss that looks through one.
        seed: Of the projector's initial weights. The global random state is never used.

    Shapes: features ``[N, C]``, ``[N, C, H, W]`` or ``[N, L, C]`` of N images, and labels where the
    loss takes them, to a scalar.

    Raises:
        ValueError: An unknown view, a negative weight, channels or a classifier missing for a part
            that is to be built, a classifier that the loss does not take; features of other
            channels, ranks or batch sizes; labels missing for a loss that takes them.
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
        student_extra_tokens: int = 0,
        teacher_extra_tokens: int = 0,
        student_classifier: nn.Module | None = None,
        teacher_classifier: nn.Module | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if view not in VIEWS:
            raise ValueError(f"view must be one of {VIEWS}, got {view!r}")
        if not weight >= 0:
            raise ValueError(f"weight must be 0 or more, got {weight}")
        for name, count in (
            ("student_extra_tokens", student_extra_tokens),
            ("teacher_extra_tokens", teacher_extra_tokens),
        ):
            if not isinstance(count, int) or count < 0:
                raise ValueError(f"{name} must be an integer, 0 or more, got {count!r}")
        self.student_channels = student_channels
        self.teacher_channels = teacher_channels
        self.view = view
        self.weight = weight
        self.student_extra_tokens = student_extra_tokens
        self.teacher_extra_tokens = teacher_extra_tokens
        classifiers = dict(
            student_classifier=student_classifier, teacher_classifier=teacher_classifier
        )
        self.loss = build_part(
            loss if loss is not None else _LOSS, num_channels=teacher_channels, **classifiers
        )
        given = [name for name, classifier in classifiers.items() if classifier is not None]
        if given and isinstance(loss, nn.Module):
            raise ValueError(
                f"{', '.join(given)} is given beside a loss that is built already: "
                "give it to the loss, or the loss as a config"
            )
        taken = inspect.signature(type(self.loss)).parameters
        for name in given:
            if name not in taken:
                raise ValueError(f"{name} is given, but {type(self.loss).__name__} takes none")
        defaults = _OF_LOGITS if getattr(self.loss, "takes_logits", False) else _OF_FEATURES
        self.projector = build_part(
            projector if projector is not None else defaults["projector"],
            in_channels=student_channels,
            out_channels=teacher_channels,
            generator=torch.Generator().manual_seed(seed),
        )
        self.normalizer = build_part(
            normalizer if normalizer is not None else defaults["normalizer"],
            num_channels=teacher_channels,
        )

    @property
    def takes_labels(self) -> bool:
        """Whether :meth:`distance` needs the images' labels."""
        return getattr(self.loss, "takes_labels", False)

    def forward(
        self, student_feature: Tensor, teacher_feature: Tensor, labels: Tensor | None = None
    ) -> Tensor:
        return self.weight * self.distance(student_feature, teacher_feature, labels)

    def distance(
        self, student_feature: Tensor, teacher_feature: Tensor, labels: Tensor | None = None
    ) -> Tensor:
        """The term without its weight; ``labels`` are ``[N]`` or ``[N, K]``, one a sample."""
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
        student_feature = without_extra_tokens(student_feature, self.student_extra_tokens)
        teacher_feature = without_extra_tokens(teacher_feature, self.teacher_extra_tokens)
        if getattr(self.projector, "takes_maps", False):
            projected = self.projector(student_feature)
            student, teacher = pair_as_samples(projected, teacher_feature, self.view)
        else:
            student, teacher = pair_as_samples(student_feature, teacher_feature, self.view)
            student = self.projector(student)
        if self.takes_labels and (labels is None or len(labels) != len(student)):
            raise ValueError(
                f"{type(self.loss).__name__} needs a label for each of {len(student)} samples, got "
                f"{'none' if labels is None else len(labels)}: use it on a classifier, with "
                "view='global'"
            )
        with torch.autocast(device_type=student.device.type, enabled=False):
            pair = self.normalizer(student), self.normalizer(teacher)
            return self.loss(*pair, labels=labels) if self.takes_labels else self.loss(*pair)
