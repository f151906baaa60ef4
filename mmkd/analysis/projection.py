"""What a projector keeps of the student, after Miles & Mikolajczyk, *Understanding the Role of the
Projector in Knowledge Distillation* (AAAI 2024).

M samples, C_s and C_t channels. Everything is computed in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmkd.analysis.samples import as_float64, standardised

__all__ = [
    "condition_number",
    "correlation",
    "effective_rank",
    "fixed_point_residual",
    "input_output_correlation",
    "root_mean_square",
    "self_correlation",
    "singular_values",
]


def singular_values(weight: Tensor) -> Tensor:
    """Those of a projector's weight, from large to small, ``[min(C_s, C_t)]`` (Figure 3).

    Args:
        weight: ``[C_t, C_s]``; kernels ``[C_t, C_s, k, k]`` count as ``[C_t, C_s k k]``.

    Raises:
        ValueError: A weight of fewer than two dimensions.
    """
    if weight.ndim < 2:
        raise ValueError(f"expected a weight [C_t, C_s, ...], got {tuple(weight.shape)}")
    return torch.linalg.svdvals(as_float64(weight).flatten(1))


def effective_rank(values: Tensor) -> float:
    """``exp(-sum p_i log p_i)``, ``p_i = s_i / sum s`` (Roy & Vetterli, EUSIPCO 2007): from 1, all
    in one direction, to their number, all alike; 0 of a weight of zeros.

    Args:
        values: Singular values, ``[R]``.
    """
    values = as_float64(values)
    total = values.sum()
    if total == 0:
        return 0.0
    return float(torch.special.entr(values / total).sum().exp())


def condition_number(values: Tensor) -> float:
    """The largest singular value over the smallest; infinite where the smallest is 0."""
    values = as_float64(values)
    return float(values.max() / values.min()) if values.min() > 0 else float("inf")


def correlation(x: Tensor, y: Tensor) -> Tensor:
    """``C_xy`` of Eq. (7): Pearson's correlation of each channel of x with each of y, over samples,
    ``[C_x, C_y]``; 0 for a channel that does not vary.

    The paper's ``Z_x^T Z_y`` of features that are batch-normalised, over the number of samples.

    Args:
        x, y: ``[M, C_x]`` and ``[M, C_y]``.

    Raises:
        ValueError: Other numbers of samples, or fewer than two.
    """
    x, y = standardised(x), standardised(y)
    if len(x) != len(y):
        raise ValueError(f"expected as many samples on either side, got {len(x)} and {len(y)}")
    return x.T @ y / len(x)


def input_output_correlation(before: Tensor, after: Tensor) -> float:
    """How much of what enters a projector is seen in what leaves it (Figure 2): the root mean
    square of :func:`correlation`, 0 to 1. The paper leaves its measure open.

    Args:
        before, after: ``[M, C_s]`` and ``[M, C_t]``.
    """
    return root_mean_square(correlation(before, after))


def root_mean_square(matrix: Tensor, *, diagonal: bool = True) -> float:
    """``sqrt(mean c_ij^2)``, in the matrix's own unit; nan of no entries.

    Args:
        matrix: ``[C_x, C_y]``.
        diagonal: Whether it counts.
    """
    if not diagonal:
        matrix = matrix[~torch.eye(*matrix.shape, dtype=torch.bool, device=matrix.device)]
    return float(matrix.square().mean().sqrt())


def self_correlation(x: Tensor) -> float:
    """How alike a feature's channels are: the root mean square of :func:`correlation` between two
    different ones, 0 to 1; nan of a single channel. It is what the diagonal of ``C_s`` (Eq. (7))
    leaves out.

    Args:
        x: ``[M, C]``.
    """
    return root_mean_square(correlation(x, x), diagonal=False)


def fixed_point_residual(student: Tensor, teacher: Tensor, weight: Tensor) -> float:
    """``||C_st - C_s W|| / ||C_st||``, in Frobenius norm: how far a linear projector is from where
    Eq. (7) would let it rest, 0; 1 at W = 0; nan where student and teacher are uncorrelated.

    Args:
        student, teacher: ``[M, C_s]`` and ``[M, C_t]``, normalised as the loss sees them.
        weight: W^T, of a linear layer: ``[C_t, C_s]``.

    Raises:
        ValueError: Shapes that do not fit.
    """
    student, teacher, weight = map(as_float64, (student, teacher, weight))
    if len(student) != len(teacher) or weight.shape != (teacher.shape[1], student.shape[1]):
        raise ValueError(
            f"a projector {list(weight.shape)} does not lie between features "
            f"{list(student.shape)} and {list(teacher.shape)}"
        )
    cross = student.T @ teacher
    left = cross - student.T @ student @ weight.T
    return float(left.norm() / cross.norm())
