"""One distillation term: a student's and a teacher's features to a weighted scalar."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.balance import WeightRule, parse_weight
from mmkd.features import (
    as_samples,
    channels_of,
    pair_as_maps,
    pair_as_samples,
    without_extra_tokens,
)
from mmkd.losses.base import VIEWS, Loss, Takes
from mmkd.normalizers import Normalizer
from mmkd.numerics import as_weights, at_least_float32
from mmkd.projectors.base import Projector
from mmkd.registry import MODELS, build_part
from mmkd.targets import Targets

__all__ = [
    "Distiller",
    "FeatureDistiller",
    "check_feature_and_logits",
    "check_logits_come_last",
]

Part = nn.Module | Mapping[str, Any]
Channels = int | Sequence[int] | None
Feature = Tensor | Sequence[Tensor]

_LOSS = dict(type="mmkd.LogSumLoss")
_LINEAR = dict(type="mmkd.LinearProjector")
_NONE = dict(type="mmkd.IdentityProjector")
_BATCH = dict(type="mmkd.BatchNormalizer")
_AS_IT_IS = dict(type="mmkd.IdentityNormalizer")


class Distiller(nn.Module):
    """What a term of its own type is: any module that compares a student with a teacher.

    A term names it as its ``type`` where a method is more than projector, normalizer and loss. All
    parameters are trained, and everything in the ``state_dict`` rides in the checkpoints. Its
    constructor is given what it takes of ``student_channels`` and ``teacher_channels`` (a list with
    several levels), ``student_classifier`` and ``teacher_classifier`` (where the term names them),
    ``seed``, and the term's other settings.

    Args:
        weight: Factor of the distance, 0 or more; or ``dict(share=...)``, the term's share of the
            gradient at the student's feature (:class:`mmkd.balance.GradientShare`), which only a
            training can keep (the hook, the callback, :func:`mmkd.engine.plain.distill`); or the
            config of another :class:`mmkd.balance.WeightRule`.

    Attributes:
        takes: What :meth:`distance` is given; the form is for the distiller's own use.
        balance: What chooses the weight; None for a fixed one.

    Raises:
        ValueError: A weight that is negative or not finite in float32; a share out of range.
    """

    takes: Takes = Takes()

    def __init__(self, weight: float | Mapping[str, Any] = 1.0) -> None:
        super().__init__()
        parsed = parse_weight(weight)
        self.balance: WeightRule | None = parsed if isinstance(parsed, WeightRule) else None
        self._fixed = 0.0 if isinstance(parsed, WeightRule) else parsed

    @property
    def weight(self) -> float | Tensor:
        """Factor of the distance in this iteration."""
        return self._fixed if self.balance is None else self.balance.weight

    @property
    def is_on(self) -> bool:
        """Whether it ever runs."""
        return self._fixed > 0 if self.balance is None else self.balance.is_on

    @property
    def _method(self) -> str:
        """Whose inputs they are, for errors."""
        return type(self).__name__

    def check_features(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> None:
        """Raises, before any training, where features cannot be compared whatever their values.

        Args:
            student, teacher: Of one blank image, one a level.

        Raises:
            ValueError: What does not fit.
        """
        for feature in (*student, *teacher):
            if self.takes.form == "maps" and feature.ndim == 2:
                raise ValueError(
                    f"{self._method} compares maps, got {tuple(feature.shape)}: tap a module that "
                    "returns [N, C, H, W]"
                )

    def check_targets(self, targets: Targets) -> None:
        """Raises, in a term's first iterations, where what images show is of no use to it. Values
        are looked at, for which a device is waited for.

        Raises:
            ValueError: A label below 0, of an image that has no class.
        """
        if "labels" in self.takes.targets and (lowest := int(targets.labels.min())) < 0:
            raise ValueError(
                f"{self._method} needs a class for each image, and this batch holds the label "
                f"{lowest}: those that mmkd.RotationPreprocessor has turned have none"
            )

    def _needed(self, targets: Targets | None) -> Targets:
        """The targets, for a method that takes them."""
        if targets is None:
            raise ValueError(f"{self._method} needs what the images show (targets), got none")
        return targets

    def _refuse_share(self, because: str) -> None:
        """For a constructor whose weight must be a number."""
        if self.balance is not None:
            raise ValueError(f"{type(self).__name__} takes a number as its weight: {because}")

    def distance(self, student: Any, teacher: Any, targets: Targets | None = None) -> Tensor:
        """The term without its weight.

        Args:
            student, teacher: Features ``[N, C]``, ``[N, C, H, W]`` or ``[N, L, C]``; lists of
                them where ``takes.several_levels``. The teacher's carry no gradient.
            targets: Where ``takes.targets``.
        """
        raise NotImplementedError

    def forward(self, student: Any, teacher: Any, targets: Targets | None = None) -> Tensor:
        if self.balance is not None:
            raise RuntimeError(
                "a share of the gradient is kept where the task's gradient is known: by the hook, "
                "the callback or mmkd.engine.plain.distill. Here, give weight a number"
            )
        return self.weight * self.distance(student, teacher, targets)


def check_feature_and_logits(owner: str, student: Sequence[int], teacher: Sequence[int]) -> None:
    """For a distiller that takes a feature and the logits of either side, by their channels.

    Raises:
        ValueError: Other than two, or logits of other classes.
    """
    if len(student) != 2 or len(teacher) != 2:
        raise ValueError(
            f"{owner} takes two modules of either side, that of the feature and that of the "
            f"logits, got {len(student)} of the student and {len(teacher)} of the teacher"
        )
    if student[1] != teacher[1]:
        raise ValueError(
            f"{owner} compares logits of the same classes, got {student[1]} of the student and "
            f"{teacher[1]} of the teacher: tap the feature first, then the classifier ('head.fc')"
        )


def check_logits_come_last(owner: str, *sides: Sequence[Tensor]) -> None:
    """For a distiller that takes a feature and then the logits, by those of one blank image.

    Raises:
        ValueError: What comes last is no row an image.
    """
    for side in sides:
        if side[-1].ndim != 2:
            raise ValueError(
                f"{owner} takes the feature first and then the logits [N, K], got "
                f"{tuple(side[-1].shape)} as the last: name the classifier ('head.fc') there"
            )


@MODELS.register_module()
class FeatureDistiller(Distiller):
    """``weight * loss(normalize(project(s)), normalize(t))`` of a student and a teacher feature.

    The parts left out are Miles & Mikolajczyk's recipe: a linear projector, BatchNorm without
    affine parameters, LogSum with alpha 4. A loss on logits has neither projector nor normalizer by
    default; one on maps no normalizer, and a projector (a 1x1 convolution) only where the widths
    differ. Normalizer and loss run outside autocast, in float32 at least; the teacher's side is
    detached here and nowhere else.

    Args:
        student_channels: C_s. May be left out where every part is already built. A list, one entry
            a level, for a loss that takes several levels; each then has a projector of its own.
        teacher_channels: C_t, likewise.
        projector: A module or its config; None for the default.
        normalizer: A module or its config; None for the default. It serves both sides.
        loss: A module or its config; None for the default.
        view: ``'dense'`` (every location a sample), ``'global'`` (pooled), ``'flat'`` (an image's
            entries in a row) or ``'map'`` (maps on a common grid); None for that which the loss
            takes, dense for samples and logits.
        weight: Factor of the result, 0 or more; or ``dict(share=...)``, see :class:`Distiller`.
        student_extra_tokens, teacher_extra_tokens: Leading tokens of ``[N, L, C]`` that stand for
            no patch (class, distillation); left out.
        student_classifier, teacher_classifier: For a loss that looks through one.
        seed: Of initial weights. The global random state is never used.

    Shapes: features ``[N, C]``, ``[N, C, H, W]`` or ``[N, L, C]`` of N images (lists of them for a
    loss that takes several levels), and targets where the loss takes them, to a scalar. Tokens
    ``[N, L, C]`` that meet another grid are laid out by the images' ``size=(height, width)``.

    Raises:
        ValueError: An unknown view, or one that the loss does not take, a negative weight, channels
            or a classifier missing for a part that is to be built, a classifier that the loss does
            not take; features of other channels, ranks or batch sizes; tokens whose grid cannot be
            told; targets missing for a loss that takes them.
        TypeError: A part that is neither a module nor a config.
    """

    def __init__(
        self,
        student_channels: Channels = None,
        teacher_channels: Channels = None,
        projector: Part | None = None,
        normalizer: Part | None = None,
        loss: Part | None = None,
        view: str | None = None,
        weight: float | Mapping[str, Any] = 1.0,
        *,
        student_extra_tokens: int = 0,
        teacher_extra_tokens: int = 0,
        student_classifier: nn.Module | None = None,
        teacher_classifier: nn.Module | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(weight)
        for name, count in (
            ("student_extra_tokens", student_extra_tokens),
            ("teacher_extra_tokens", teacher_extra_tokens),
        ):
            if not isinstance(count, int) or count < 0:
                raise ValueError(f"{name} must be an integer, 0 or more, got {count!r}")
        self.student_channels = student_channels
        self.teacher_channels = teacher_channels
        self.student_extra_tokens = student_extra_tokens
        self.teacher_extra_tokens = teacher_extra_tokens
        generator = torch.Generator().manual_seed(seed)
        self.loss = _built_loss(
            loss,
            dict(
                num_channels=teacher_channels,
                student_channels=student_channels,
                teacher_channels=teacher_channels,
                seed=seed,
                generator=generator,
            ),
            student_classifier=student_classifier,
            teacher_classifier=teacher_classifier,
        )
        self.takes = _taken_by(self.loss)
        self.view = _checked_view(view, self.loss, self.takes)
        self._check_levels(student_channels, teacher_channels)
        self._check_widths()
        self.projector = self._built_projector(projector, generator)
        default = _BATCH if self.takes.form == "samples" else _AS_IT_IS
        self.normalizer = build_part(
            normalizer if normalizer is not None else default, num_channels=teacher_channels
        )

    def _check_levels(self, *channels: Channels) -> None:
        is_list = [isinstance(each, Sequence) for each in channels]
        if any(is_list) != self.takes.several_levels or len(set(is_list)) > 1:
            expected = "levels=[...], all at once" if self.takes.several_levels else "level=..."
            raise ValueError(
                f"{type(self.loss).__name__} takes "
                f"{'several levels' if self.takes.several_levels else 'one level'}, got channels "
                f"{channels[0]} and {channels[1]}: in a term, give {expected}"
            )
        found = [len(each) for each in channels if isinstance(each, Sequence)]
        if found and min(found) < self.takes.levels:
            raise ValueError(
                f"{self._method} takes {self.takes.levels} levels or more, got {min(found)}"
            )

    def _check_widths(self) -> None:
        sides = (self._levels(self.student_channels), self._levels(self.teacher_channels))
        for ours, theirs in zip(*sides, strict=True):
            if isinstance(self.loss, Loss) and ours is not None and theirs is not None:
                self.loss.check_widths(ours, theirs)

    def _built_projector(self, projector: Part | None, generator: torch.Generator) -> nn.Module:
        if not self.takes.several_levels:
            return self._one_projector(
                projector, self.student_channels, self.teacher_channels, generator
            )
        if isinstance(projector, nn.Module):
            raise ValueError("with several levels, give the projector's config: each has its own")
        channels = zip(
            self._levels(self.student_channels), self._levels(self.teacher_channels), strict=True
        )
        return nn.ModuleList(self._one_projector(projector, *each, generator) for each in channels)

    def _one_projector(
        self, projector: Part | None, ours: Channels, theirs: Channels, generator: torch.Generator
    ) -> nn.Module:
        if self.takes.own_widths:
            if projector is not None:
                raise ValueError(
                    f"{type(self.loss).__name__} takes either side in its own width: leave the "
                    "projector out"
                )
            return build_part(_NONE, in_channels=ours, out_channels=ours)
        needs_none = self.takes.form in ("logits", "images") or (
            self.takes.form == "maps" and ours == theirs
        )
        return build_part(
            projector if projector is not None else (_NONE if needs_none else _LINEAR),
            in_channels=ours,
            out_channels=theirs,
            generator=generator,
        )

    def forward(
        self,
        student: Feature,
        teacher: Feature,
        targets: Targets | None = None,
        *,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        if self.takes.targets:
            self._needed(targets)
        elif targets is None and size is not None:
            targets = Targets(size)
        return super().forward(student, teacher, targets)

    def distance(
        self, student: Feature, teacher: Feature, targets: Targets | None = None
    ) -> Tensor:
        """The term without its weight. See :meth:`Distiller.distance`; the size in ``targets`` is
        looked at wherever it is given."""
        if self.takes.targets:
            self._needed(targets)
        size = None if targets is None else targets.size
        levels = zip(
            self._levels(self.projector),
            self._levels(student),
            self._levels(teacher),
            self._levels(self.student_channels),
            self._levels(self.teacher_channels),
            strict=True,
        )
        pairs = [self._paired(*level, size=size) for level in levels]
        with torch.autocast(device_type=pairs[0][0].device.type, enabled=False):
            sides = [[self.normalized(each) for each in side] for side in zip(*pairs, strict=True)]
            ours, theirs = sides if self.takes.several_levels else (side[0] for side in sides)
            if self.takes.targets:
                return self.loss(ours, theirs, targets=targets)
            return self.loss(ours, theirs)

    @property
    def _method(self) -> str:
        """The loss's name."""
        return type(self.loss).__name__

    def _levels(self, values: Any) -> list[Any]:
        return list(values) if self.takes.several_levels else [values]

    def _paired(
        self,
        projector: nn.Module,
        student: Tensor,
        teacher: Tensor,
        *channels: Channels,
        size: tuple[int, int] | None,
    ) -> tuple[Tensor, Tensor]:
        """Both sides of one level, projected, in the view."""
        teacher = teacher.detach()
        for side, feature, expected in zip(
            ("student", "teacher"), (student, teacher), channels, strict=True
        ):
            if expected is not None and channels_of(feature) != expected:
                raise ValueError(
                    f"expected a {side} feature of {expected} channels, "
                    f"got shape {tuple(feature.shape)}"
                )
        student = without_extra_tokens(student, self.student_extra_tokens)
        teacher = without_extra_tokens(teacher, self.teacher_extra_tokens)
        # The student may have run under an autocast that is over.
        student = as_weights(projector, student)
        if isinstance(projector, Projector) and projector.takes_maps:
            return self._viewed(projector(student), teacher, size)
        student, teacher = self._viewed(student, teacher, size)
        return projector(student), teacher

    def _viewed(
        self, student: Tensor, teacher: Tensor, size: tuple[int, int] | None
    ) -> tuple[Tensor, Tensor]:
        if self.view == "map":
            return pair_as_maps(student, teacher, size)
        return pair_as_samples(student, teacher, self.view, size)

    def normalized(self, feature: Tensor) -> Tensor:
        """A projected student's or a teacher's feature as the loss is given it.

        Args:
            feature: Samples ``[M, C]``, or a map ``[N, C, H, W]``.
        """
        takes_maps = isinstance(self.normalizer, Normalizer) and self.normalizer.takes_maps
        if feature.ndim < 4 or takes_maps:
            return self.normalizer(feature)
        n, _, height, width = feature.shape
        samples = self.normalizer(as_samples(at_least_float32(feature)))
        return samples.reshape(n, height, width, -1).permute(0, 3, 1, 2)


def _built_loss(loss: Part | None, inferred: Mapping[str, Any], **classifiers: Any) -> nn.Module:
    given = [name for name, classifier in classifiers.items() if classifier is not None]
    if given and isinstance(loss, nn.Module):
        raise ValueError(
            f"{', '.join(given)} is given beside a loss that is built already: "
            "give it to the loss, or the loss as a config"
        )
    built = build_part(loss if loss is not None else _LOSS, **inferred, **classifiers)
    taken = inspect.signature(type(built)).parameters
    for name in given:
        if name not in taken:
            raise ValueError(f"{name} is given, but {type(built).__name__} takes none")
    return built


def _taken_by(loss: nn.Module) -> Takes:
    if isinstance(loss, Loss):
        return loss.takes
    if hasattr(loss, "takes"):
        raise ValueError(
            f"{type(loss).__name__} says what it takes, and is not heard, since it is no "
            "mmkd.losses.Loss: derive it from that class"
        )
    return Takes()


def _checked_view(view: str | None, loss: nn.Module, takes: Takes) -> str:
    possible = VIEWS[takes.form]
    if view is None:
        return takes.view or possible[0]
    known = sorted({each for views in VIEWS.values() for each in views})
    if view not in known:
        raise ValueError(f"view must be one of {known}, got {view!r}")
    if view not in possible:
        advice = "leave it out" if len(possible) == 1 else f"use {' or '.join(possible)}"
        raise ValueError(
            f"{type(loss).__name__} compares {takes.form}, so that view={view!r} does not fit: "
            f"{advice}"
        )
    return view
