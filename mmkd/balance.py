"""A term's weight as its share of the gradient at the student's feature."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch import distributed as dist

from mmkd.backward import at_end_of_backward
from mmkd.distributed import is_synchronized
from mmkd.errors import InputError, check_keys, naming
from mmkd.numerics import at_least_float32
from mmkd.registry import MODELS, arguments_of, find_class

__all__ = [
    "Arrived",
    "GradientMeter",
    "GradientShare",
    "WeightRule",
    "parse_weight",
    "together",
]

# Iterations over which a weight is averaged.
_WINDOW = 50
# Of one iteration's log ratio of the gradients from the mean: what is further off counts as this.
_LARGEST_STEP = 2.0
_LARGEST_WEIGHT = 1e5


class Arrived(NamedTuple):
    """What came back to a term's features in one backward pass; scalars, before any loss scale.

    Args:
        task: Norm of the gradient of all that is no term at these features.
        own: Norm of the gradient of the term's distance, without its weight.
        cosine: Of the angle between the two.
        share: Of the term, weighted, in the sum of the norms of the task and of all terms.
    """

    task: Tensor
    own: Tensor
    cosine: Tensor
    share: Tensor


class WeightRule(nn.Module):
    """What chooses a term's weight while it trains: ``weight=dict(type=..., ...)``.

    Its buffers ride with the distiller's; what it is given is the same on every process.
    """

    @property
    def weight(self) -> Tensor:
        """The term's weight in the iteration that runs, a scalar without gradient."""
        raise NotImplementedError

    @property
    def is_on(self) -> bool:
        """Whether the term ever runs."""
        return True

    def begin(self, distance: Tensor, task: Tensor | None) -> None:
        """Before the weight of an iteration is asked for.

        Args:
            distance: Of the term, a scalar.
            task: The student's own loss, where the trainer tells it.
        """

    def observe(self, arrived: Arrived) -> None:
        """After the backward pass of an iteration."""

    def filtered(self, own: Tensor, task: Tensor) -> Tensor:
        """What is let through of the term's gradient at a feature, beside that of the task."""
        return own


@MODELS.register_module()
class GradientShare(WeightRule):
    """Keeps a term's weight such that its gradient has a given share at the student's feature.

    With ``g_task`` the gradient of all else and ``g_d`` that of the unweighted distance, both at
    the feature f, the weight is ``w = s / (1 - S) * |g_task| / |g_d|``, where S sums the shares of
    the terms at f that are on; so ``s = w |g_d| / (|g_task| + sum_j w_j |g_j|)``. Both norms are
    those of the whole batch over all processes. The ratio is the geometric mean of the iterations
    so far, of the last 50 or so later on; of an iteration that is further off than a factor of 7.4,
    no more than that counts. In the first iteration, in which the ratio is not known, the weight is
    0.

    Args:
        share: s, from 0 (the term never runs) to less than 1.

    Attributes:
        together: S; the distillation sets it.

    Raises:
        ValueError: A share out of range.
    """

    log_ratio: Tensor
    observed: Tensor

    def __init__(self, share: float) -> None:
        super().__init__()
        if not isinstance(share, int | float) or not 0 <= share < 1:
            raise ValueError(f"share must be from 0 to less than 1, got {share!r}")
        self.share = self.together = float(share)
        self.register_buffer("log_ratio", torch.zeros(()))
        self.register_buffer("observed", torch.zeros(()))

    @property
    def weight(self) -> Tensor:
        """See :attr:`WeightRule.weight`."""
        weight = self.share / (1 - self.together) * self.log_ratio.exp()
        bounded = weight.clamp(1 / _LARGEST_WEIGHT, _LARGEST_WEIGHT)
        return torch.where(self.observed > 0, bounded, torch.zeros_like(bounded))

    @property
    def is_on(self) -> bool:
        """Whether there is a share."""
        return self.share > 0

    @property
    def is_at_bound(self) -> Tensor:
        """Whether the weight would be another if it had no bounds."""
        return (self.observed > 0) & (
            (self.weight >= _LARGEST_WEIGHT) | (self.weight <= 1 / _LARGEST_WEIGHT)
        )

    @torch.no_grad()
    def observe(self, arrived: Arrived) -> None:
        """Takes account of an iteration; one with a gradient of 0 or not finite counts for
        nothing."""
        found = (arrived.task.log() - arrived.own.log()).to(self.log_ratio)
        step = (found - self.log_ratio).clamp(-_LARGEST_STEP, _LARGEST_STEP)
        rate = (1 / (self.observed + 1)).clamp_min(1 / _WINDOW)
        is_first = self.observed == 0
        ratio = torch.where(is_first, found, self.log_ratio + rate * step)
        is_finite = torch.isfinite(found)
        self.log_ratio.copy_(torch.where(is_finite, ratio, self.log_ratio))
        self.observed.add_(is_finite.to(self.observed))


def parse_weight(weight: Any, where: str = "weight") -> float | WeightRule:
    """Reads a term's ``weight``: a number, ``dict(share=...)``, or the config of another rule.

    Args:
        weight: The setting.
        where: Its path, for errors.

    Raises:
        ValueError: A number below 0 or not finite in float32, a share out of range, another key.
    """
    if isinstance(weight, WeightRule):
        return weight
    if isinstance(weight, Mapping) and weight:
        with naming(where):
            return _rule(weight, where)
    if not isinstance(weight, int | float):
        expected = "a number or dict(share=...)"
    elif not weight >= 0:
        expected = "0 or more"
    elif weight > torch.finfo(torch.float32).max:
        expected = "finite in float32"
    else:
        return weight
    raise InputError(f"{where} must be {expected}, got {weight!r}", setting=where)


def _rule(weight: Mapping[str, Any], where: str) -> WeightRule:
    kind = find_class(weight.get("type", "mmkd.GradientShare"))
    if not issubclass(kind, WeightRule):
        raise ValueError(f"type must be a mmkd.balance.WeightRule, got {kind.__name__}")
    check_keys(where, weight, ("type", *arguments_of(kind)))
    return kind(**{key: value for key, value in weight.items() if key != "type"})


class _Term(NamedTuple):
    """How a term takes part in a backward pass.

    Args:
        features: Those that it compares.
        applied: Its weight times its schedule's factor.
        unit: Squared norm of its unweighted gradient, where its weight of 0 hides it.
    """

    features: tuple[int, ...]
    applied: Tensor | float
    unit: Tensor | None


class GradientMeter:
    """Tells apart what arrives at the student's features in the backward pass that follows.

    Each term gets a branch of the feature; the gradient of the feature less those of the branches
    is the task's. It costs no further backward pass: a difference and the norms of each feature.

    Args:
        on_end: Called at the end of each backward pass in which a term and the task have arrived,
            with what has, by term. On every process, and with the same values.
    """

    def __init__(self, on_end: Callable[[dict[str, Arrived]], None]) -> None:
        self._on_end = on_end
        self._joints: dict[int, _Joint] = {}
        self._branches: dict[str, list[tuple[int, Tensor]]] = {}
        self._terms: dict[str, _Term] = {}
        self._scales: dict[str, Tensor] = {}
        self._ask = at_end_of_backward(self._end)

    def branch(self, term: str, feature: Tensor) -> Tensor:
        """The feature for a term: the same values, with a gradient of its own."""
        if id(feature) not in self._joints:
            self._joints[id(feature)] = _Joint(feature, self._ask)
        branch = feature.view_as(feature)
        self._branches.setdefault(term, []).append((id(feature), branch))
        return branch

    def listen(
        self,
        term: str,
        weighted: Tensor,
        applied: Tensor | float,
        unit: Tensor | None = None,
        rule: WeightRule | None = None,
    ) -> None:
        """Listens from here on to a term that has its branches.

        Not earlier: a look at the gradient before the backward pass is not what arrives in it.

        Args:
            term: Its name.
            weighted: What joins the objective, whose gradient tells loss scales and the like.
            applied: The weight in ``weighted``.
            unit: Squared norm of the unweighted distance's gradient, where ``applied`` is 0.
            rule: Of its weight, which may filter its gradient.
        """
        branches = self._branches.pop(term)
        self._terms[term] = _Term(tuple(feature for feature, _ in branches), applied, unit)
        for feature, branch in branches:
            self._joints[feature].listen(term, branch, rule)

        def note(scale: Tensor) -> None:
            self._scales[term] = scale

        weighted.register_hook(note)

    @torch.no_grad()
    def _end(self) -> None:
        terms = [name for name in self._terms if name in self._scales]
        if not terms:
            return
        squares = torch.stack([self._squares(name) for name in terms])
        if is_synchronized(None):
            dist.all_reduce(squares)
        found = {}
        for name, (task, own, inner, unit) in zip(terms, squares, strict=True):
            applied, is_hidden = self._terms[name].applied, self._terms[name].unit is not None
            scale = self._scales[name].to(task).abs()
            together = self._together(name, terms, squares)
            weighted = own.sqrt()
            found[name] = Arrived(
                task=task.sqrt() / scale,
                own=unit.sqrt() if is_hidden else weighted / (scale * applied),
                cosine=inner / (task.sqrt() * weighted),
                share=weighted / (task.sqrt() + together),
            )
        self._on_end(found)

    def _squares(self, name: str) -> Tensor:
        """Of the task and of the term, their inner product, and the unit of the term."""
        term = self._terms[name]
        found = torch.stack([self._joints[f].squares(name) for f in term.features]).sum(dim=0)
        unit = found.new_zeros(()) if term.unit is None else term.unit.to(found)
        return torch.cat([found, unit[None]])

    def _together(self, name: str, terms: list[str], squares: Tensor) -> Tensor:
        """The summed norms of all terms at a term's features."""
        mine = self._terms[name].features
        same = [i for i, each in enumerate(terms) if self._terms[each].features == mine]
        return squares[same, 1].sqrt().sum()


class _Joint:
    """Where the task's gradient and those of the terms meet: one feature.

    It holds no tensor of the graph, whose hooks hold it.

    Args:
        feature: The student's.
        on_gradient: Called when a gradient has arrived.
    """

    def __init__(self, feature: Tensor, on_gradient: Callable[[], None]) -> None:
        self._on_gradient = on_gradient
        self._rules: dict[str, WeightRule | None] = {}
        self._arrived: dict[str, Tensor] = {}
        self._task = torch.zeros((), device=feature.device)
        self._own: dict[str, tuple[Tensor, Tensor]] = {}
        feature.register_hook(self._total)

    def listen(self, term: str, branch: Tensor, rule: WeightRule | None) -> None:
        self._rules[term] = rule

        def note(gradient: Tensor) -> None:
            self._arrived[term] = at_least_float32(gradient)

        branch.register_hook(note)

    def _total(self, gradient: Tensor) -> Tensor | None:
        task = at_least_float32(gradient)
        for own in self._arrived.values():
            task = task - own
        self._task = self._task + task.square().sum()
        for term, own in self._arrived.items():
            square, inner = self._own.get(term, (0.0, 0.0))
            self._own[term] = (square + own.square().sum(), inner + (task * own).sum())
        through = gradient
        for term, own in self._arrived.items():
            rule = self._rules[term]
            filtered = own if rule is None else rule.filtered(own, task)
            if filtered is not own:
                through = through + (filtered - own).to(through)
        self._arrived = {}
        self._on_gradient()
        return None if through is gradient else through

    def squares(self, term: str) -> Tensor:
        """Squared norms of the task and of a term, and their inner product."""
        none = torch.zeros_like(self._task)
        return torch.stack([self._task, *self._own.get(term, (none, none))])


def together(rules: Mapping[str, tuple[WeightRule | None, Any]]) -> None:
    """Tells the terms at one feature of each other.

    Args:
        rules: By term, that of its weight, and what tells its features.

    Raises:
        ValueError: They leave nothing to the task.
    """
    shares = {n: (r, where) for n, (r, where) in rules.items() if isinstance(r, GradientShare)}
    for name, (share, features) in shares.items():
        same = {n: each.share for n, (each, where) in shares.items() if where == features}
        share.together = math.fsum(same.values())
        if share.together >= 1:
            raise ValueError(
                f"the shares of {', '.join(same)}, at the same feature as {name}, come to "
                f"{share.together:g}, and leave nothing to the task: make them less than 1 in all"
            )
