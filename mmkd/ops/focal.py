"""Focal losses (Lin et al., ICCV 2017), with the names and conventions of ``mmcv._ext``.

N samples, C classes: ``target`` is ``[N]`` of class indices, ``weight`` is ``[C]``, or empty for
none. Losses overwrite ``output``; gradients overwrite ``grad_input``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import common_float

__all__ = [
    "sigmoid_focal_loss_backward",
    "sigmoid_focal_loss_forward",
    "softmax_focal_loss_backward",
    "softmax_focal_loss_forward",
]


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """``-balance (1 - q)^gamma log(q)`` with q the probability of the truth, per class.

    ``input`` are logits ``[N, C]``; a target of C is background, every class is then a negative.
    q is ``sigmoid(x)`` for the target's class, ``sigmoid(-x)`` for the others; balance is
    ``alpha`` and ``1 - alpha``, times the target's weight. Background weighs 1: the compiled
    operator reads past the end of ``weight`` there.
    """
    sign, balance = _truth(input, target, weight, alpha)
    log_q = F.logsigmoid(sign * input.to(sign.dtype))
    output.copy_(-balance * (1 - log_q.exp()) ** gamma * log_q)


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """The derivative of :func:`sigmoid_focal_loss_forward` with respect to each logit."""
    sign, balance = _truth(input, target, weight, alpha)
    log_q = F.logsigmoid(sign * input.to(sign.dtype))
    q = log_q.exp()
    grad_input.copy_(sign * balance * (1 - q) ** gamma * (gamma * q * log_q - (1 - q)))


def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """``-alpha (1 - p)^gamma log(p)`` with p the target's probability, ``[N]``.

    ``input`` are probabilities ``[N, C]``. A negative target is ignored: its loss is 0.
    """
    p, balance = _target_probability(input, target, weight, alpha)
    output.copy_(-balance * (1 - p) ** gamma * _log(p))


def softmax_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    buff: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """The derivative of :func:`softmax_focal_loss_forward` with respect to each logit.

    ``buff``, ``[N]``, receives ``p`` times the derivative with respect to ``p``.
    """
    p, balance = _target_probability(input, target, weight, alpha)
    miss = (1 - p).clamp(min=torch.finfo(p.dtype).tiny)
    slope = balance * (gamma * miss ** (gamma - 1) * p * _log(p) - miss**gamma)
    buff.copy_(slope)
    classes = torch.arange(input.shape[1], device=input.device)
    grad_input.copy_(slope[:, None] * ((target[:, None] == classes).to(p.dtype) - input))


def _truth(input: Tensor, target: Tensor, weight: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """+1 for the target's class and -1 for the others, and their balance, both ``[N, C]``."""
    (logits,) = common_float(input)
    classes = torch.arange(input.shape[1], device=input.device)
    positive = target[:, None] == classes
    sign = torch.where(positive, 1.0, -1.0).to(logits.dtype)
    balance = torch.where(positive, alpha, 1 - alpha).to(logits.dtype)
    return sign, balance * _class_weight(target, weight, logits)[:, None]


def _target_probability(
    probability: Tensor, target: Tensor, weight: Tensor, alpha: float
) -> tuple[Tensor, Tensor]:
    """Each sample's probability of its target, and its balance, both ``[N]``."""
    (probability,) = common_float(probability)
    p = probability.gather(1, target.clamp(min=0)[:, None]).squeeze(1)
    return p, alpha * (target >= 0) * _class_weight(target, weight, probability)


def _class_weight(target: Tensor, weight: Tensor, like: Tensor) -> Tensor:
    """Each sample's class weight, ``[N]``; 1 without weights and where the target is no class."""
    padded = torch.cat([weight.to(like.dtype), like.new_ones(1)])
    return padded[torch.where((target >= 0) & (target < len(weight)), target, len(weight))]


def _log(p: Tensor) -> Tensor:
    return p.clamp(min=torch.finfo(p.dtype).tiny).log()
