"""The head that CID deploys: Deng & Zhang, *Comprehensive Knowledge Distillation with Causal
Intervention* (NeurIPS 2021)."""

from __future__ import annotations

from typing import Any

import torch
from mmpretrain.models.heads import LinearClsHead
from torch import Tensor, nn
from torch.nn.functional import softmax

from mmkd.numerics import check_temperature

__all__ = ["ContextClsHead"]


class ContextClsHead(LinearClsHead):
    """A classifier that sees beside the feature f the mean feature of the classes that f may be of:
    ``W [f, sum_k p_k c_k] + b``, ``p = softmax(V f / T)`` without gradient (Eqs. (6) to (9)).

    V is ``fc``, which learns from the teacher's logits alone, W and b are ``context_fc``, and the
    classes' means c are the buffer ``context``, which :class:`mmkd.distillers.CIDDistiller` fills.
    Until it has, the head predicts by ``fc`` and its own loss is 0: without the term, or with its
    weight at 0, it never learns, and a plain baseline needs ``LinearClsHead``. Weight decay reaches
    W meanwhile, as it does not in the authors' program. The student's checkpoint holds all of it,
    and predicts without teacher and hook.

    Args:
        num_classes: K.
        in_channels: C of the feature.
        temperature: T.
        **kwargs: Of ``LinearClsHead``: ``loss``, ``topk``, ``cal_acc``, ``init_cfg``.

    Shapes: ``([N, C],)`` to ``[N, K]``.

    Raises:
        ValueError: A temperature out of range.
    """

    context: Tensor
    is_known: Tensor

    def __init__(
        self, num_classes: int, in_channels: int, temperature: float = 4.0, **kwargs: Any
    ) -> None:
        super().__init__(num_classes=num_classes, in_channels=in_channels, **kwargs)
        check_temperature(temperature)
        self.temperature = temperature
        self.context_fc = nn.Linear(2 * in_channels, num_classes)
        self.register_buffer("context", torch.zeros(num_classes, in_channels))
        self.register_buffer("is_known", torch.zeros((), dtype=torch.bool))

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Logits ``[N, K]``."""
        feature = self.pre_logits(feats)
        first = self.fc(feature)
        likely = softmax(first.detach().float() / self.temperature, dim=1)
        seen = (likely @ self.context).to(feature)
        second = self.context_fc(torch.cat([feature, seen], dim=1))
        # Both are computed: to ask which would wait for the device. A copy, since contexts may
        # become known before the backward pass.
        return torch.where(self.is_known.clone(), second, first)

    def loss(self, feats: tuple[Tensor, ...], data_samples: list[Any], **kwargs: Any) -> dict:
        """The cross-entropy, once the classes' means are known."""
        losses = super().loss(feats, data_samples, **kwargs)
        return {**losses, "loss": losses["loss"] * self.is_known.clone()}
