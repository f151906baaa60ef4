"""Every registered loss on an example input.

One that is built without arguments and takes no targets has one by itself; any other needs an entry
in ``SPECIAL``, and the tests refuse it without.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import mmkd.losses
from mmkd.losses import (
    ATLoss,
    BinaryKDLoss,
    CorrelationLogSumLoss,
    CrossKDLoss,
    CWDLoss,
    DISTLoss,
    DKDLoss,
    FBKDLoss,
    FGDLoss,
    FGFILoss,
    FSPLoss,
    JointClassifierLoss,
    KDLoss,
    LDLoss,
    LogSumLoss,
    Loss,
    MGDLoss,
    NKDLoss,
    ReviewKDLoss,
    RKDLoss,
    ScoreWeightedL2Loss,
    SoftmaxRegressionLoss,
    VIDLoss,
)
from mmkd.numerics import at_least_float32
from mmkd.registry import MODELS
from mmkd.targets import Boxes, Targets

__all__ = ["EXAMPLES", "Example", "needs_example", "registered_losses", "without_example"]

SHAPES = {"samples": (6, 5), "images": (6, 5), "logits": (6, 5), "maps": (3, 4, 3, 2)}
# Four sides of two bins.
_BINS = (3, 8, 3, 2)


@dataclass(frozen=True)
class Example:
    """A loss, and inputs on which it can be tried.

    Args:
        loss: The loss.
        targets: Gives what the images show, in the order of the images that is given.
        mixes_channels: Whether the loss tells channels apart, as one with a classifier does.
        holds_back: Whether a part of the formula passes no gradient on.
        is_steep: Whether its gradient grows faster than the features, beyond float16's range.
    """

    loss: Loss
    targets: Callable[[Tensor], Targets] | None = None
    mixes_channels: bool = False
    holds_back: bool = False
    is_steep: bool = False

    def __str__(self) -> str:
        told = (float, str)
        settings = [f"{k}={v}" for k, v in vars(self.loss).items() if isinstance(v, told)]
        return "-".join([type(self.loss).__name__, *settings])

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one side, at one level."""
        has_bins = isinstance(self.loss, LDLoss) or getattr(self.loss, "compare", "") == "bins"
        return _BINS if has_bins else SHAPES[self.loss.takes.form]

    def pair(self, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
        """A student's and a teacher's feature, drawn from a normal distribution."""
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(2, *self.shape, generator=generator, dtype=torch.float64)
        student, teacher = drawn.to(dtype)
        return student, teacher

    def __call__(self, student: Tensor, teacher: Tensor, order: Tensor | None = None) -> Tensor:
        """The loss; with several levels, of the feature and its half at once.

        Args:
            order: Of the images, where the features were reordered.
        """
        if any(True for _ in self.loss.parameters()):
            self.loss.to(at_least_float32(student).dtype)
        sides: tuple[Any, Any] = (student, teacher)
        if self.loss.takes.several_levels:
            sides = ([student, student / 2], [teacher, teacher / 2])
        if self.targets is None:
            return self.loss(*sides)
        images = torch.arange(len(student)) if order is None else order
        return self.loss(*sides, targets=self.targets(images))


def registered_losses() -> list[type[Loss]]:
    """Those of the project, by the registry."""
    MODELS.import_from_location()
    found = (each for each in MODELS.module_dict.values() if inspect.isclass(each))
    own = mmkd.losses.__name__
    return [each for each in found if issubclass(each, Loss) and each.__module__.startswith(own)]


def _labels(images: Tensor) -> Targets:
    return Targets((8, 8), labels=images % 3)


def _scenes(images: Tensor) -> Targets:
    """The first image of each three holds two boxes, the second one outside, the third nothing."""
    corners = {
        0: [[1.0, 0.0, 5.0, 12.0], [3.0, 3.0, 8.0, 9.0]],
        1: [[20.0, 2.0, 30.0, 9.0], [2.0, 7.0, 3.0, 8.0]],
        2: [],
    }
    boxes = [torch.tensor(corners[int(i) % 3], dtype=torch.float64).reshape(-1, 4) for i in images]
    return Targets((12, 8), boxes=[Boxes(each, torch.zeros(len(each)).long()) for each in boxes])


def _scored(images: Tensor) -> Targets:
    generator = torch.Generator().manual_seed(9)
    scores = torch.rand(6, 1, 3, 2, generator=generator, dtype=torch.float64)
    return Targets((12, 8), scores=scores[images])


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def _trained(loss: Loss) -> Loss:
    """With weights other than zero everywhere, as after some training."""
    generator = _generator()
    for parameter in loss.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return loss


def _classifier() -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(5, 3).double()


SPECIAL: dict[type[Loss], list[Example]] = {
    LogSumLoss: [Example(LogSumLoss(alpha=alpha)) for alpha in (4.0, 1.5, 2.0)],
    CorrelationLogSumLoss: [Example(CorrelationLogSumLoss(alpha=alpha)) for alpha in (4.0, 3.0)],
    KDLoss: [Example(KDLoss(temperature=t)) for t in (4.0, 1.0)],
    CWDLoss: [Example(CWDLoss(temperature=t)) for t in (1.0, 4.0)],
    SoftmaxRegressionLoss: [Example(SoftmaxRegressionLoss(_classifier()), mixes_channels=True)],
    JointClassifierLoss: [
        Example(JointClassifierLoss(_classifier()), targets=_labels, mixes_channels=True)
    ],
    ATLoss: [Example(ATLoss()), Example(ATLoss(power=3.0))],
    FBKDLoss: [Example(_trained(FBKDLoss(4, 4)), mixes_channels=True, holds_back=True)],
    FGDLoss: [Example(_trained(FGDLoss(4)), targets=_scenes, mixes_channels=True)],
    CrossKDLoss: [
        Example(CrossKDLoss(nn.Softplus(), compare), targets=_scored, mixes_channels=True)
        for compare in ("classes", "bins", "deltas", "distances")
    ],
    DKDLoss: [
        Example(DKDLoss(beta=beta), targets=_labels, mixes_channels=True) for beta in (8.0, 0.5)
    ],
    LDLoss: [
        Example(LDLoss(temperature=t), targets=_scored, mixes_channels=True) for t in (10.0, 1.0)
    ],
    ScoreWeightedL2Loss: [Example(ScoreWeightedL2Loss(), targets=_scored)],
    BinaryKDLoss: [Example(BinaryKDLoss(temperature=t)) for t in (1.0, 4.0)],
    FGFILoss: [Example(FGFILoss(scales=(1.0, 2.0)), targets=_scenes)],
    MGDLoss: [Example(MGDLoss(4, masked=0.0), mixes_channels=True)],
    DISTLoss: [Example(DISTLoss(beta=b, gamma=g)) for b, g in ((2.0, 2.0), (1.0, 0.0))],
    FSPLoss: [Example(FSPLoss(), is_steep=True)],
    NKDLoss: [
        Example(NKDLoss(temperature=t), targets=_labels, mixes_channels=True) for t in (1.0, 4.0)
    ],
    RKDLoss: [Example(RKDLoss(distance=d, angle=a)) for d, a in ((25.0, 50.0), (1.0, 0.0))],
    VIDLoss: [Example(VIDLoss(4, 4), mixes_channels=True)],
    ReviewKDLoss: [Example(ReviewKDLoss([4, 4], [4, 4], inner=3), mixes_channels=True)],
}


def needs_example(loss: type[Loss]) -> bool:
    """Whether the class alone does not tell how to try it."""
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(loss).parameters.values()
    required = [p for p in parameters if p.default is p.empty and p.kind not in variadic]
    return bool(loss.takes.targets or required)


def without_example(losses: list[type[Loss]]) -> list[str]:
    """Names of the losses that need an example and have none."""
    return [each.__name__ for each in losses if needs_example(each) and each not in SPECIAL]


EXAMPLES = [
    example
    for loss in registered_losses()
    if loss in SPECIAL or not needs_example(loss)
    for example in (SPECIAL.get(loss) or [Example(loss())])
]
