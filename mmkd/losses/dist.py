"""DIST: Huang et al., *Knowledge Distillation from A Stronger Teacher* (NeurIPS 2022)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softmax

from mmkd.losses.base import Takes, TemperatureLoss
from mmkd.numerics import at_least_float32, check_factors, check_logits, check_temperature
from mmkd.registry import MODELS

__all__ = ["DISTLoss", "dist"]

# Added to the product of both lengths, as by the authors' program: among many classes, columns of
# small probabilities are that short, and count for less.
_EPS = 1e-8


def dist(
    student: Tensor,
    teacher: Tensor,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
) -> Tensor:
    """``T^2 (beta inter + gamma intra)``, each the mean of ``1 - r`` of probabilities at T.

    r is Pearson's correlation of student and teacher: inter between the classes of each image
    (Eq. (6)), intra between the images of each class (Eq. (8)). T^2 is the authors' program's, as
    is 1e-8, added to the product of both lengths by which r divides.

    Args:
        student, teacher: Logits ``[N, K]``.
        beta, gamma: 0 or more.
        temperature: T, above 0.

    Returns:
        A scalar, float32 at least. Where one side does not vary, r is 0.

    Raises:
        ValueError: Shapes differ, are empty or not of rank 2; a setting out of range.
    """
    _check(beta, gamma, temperature)
    check_logits(student, teacher)
    ours, theirs = (softmax(at_least_float32(x) / temperature, dim=1) for x in (student, teacher))
    inter = 1 - _correlations(ours, theirs).mean()
    intra = 1 - _correlations(ours.T, theirs.T).mean()
    return (beta * inter + gamma * intra) * temperature**2


def _correlations(x: Tensor, y: Tensor) -> Tensor:
    """Pearson's, row by row."""
    x, y = (each - each.mean(dim=1, keepdim=True) for each in (x, y))
    lengths = [_length(each) for each in (x, y)]
    return (x * y).sum(dim=1) / (lengths[0] * lengths[1] + _EPS)


def _length(x: Tensor) -> Tensor:
    """Of every row, with a finite gradient at 0."""
    squares = x.square().sum(dim=1)
    is_zero = squares == 0
    return squares.masked_fill(is_zero, 1).sqrt().masked_fill(is_zero, 0)


def _check(beta: float, gamma: float, temperature: float) -> None:
    check_factors(beta=beta, gamma=gamma)
    check_temperature(temperature)


@MODELS.register_module()
class DISTLoss(TemperatureLoss):
    """:func:`dist` as a module.

    The paper has beta and gamma 2, and temperature 4 on CIFAR-100, 1 on ImageNet.

    Args:
        beta: Of relations between classes.
        gamma: Of relations between images.
        temperature: T, above 0.

    Shapes: logits ``[N, K]`` and ``[N, K]`` to a scalar. The N images are those of one process.

    Raises:
        ValueError: A setting out of range; shapes that differ, are empty or not of rank 2.
    """

    takes = Takes(form="logits")

    def __init__(self, beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0) -> None:
        super().__init__(temperature)
        _check(beta, gamma, temperature)
        self.beta, self.gamma = beta, gamma

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return dist(student, teacher, self.beta, self.gamma, self.temperature)
