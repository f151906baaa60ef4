"""How much of the teacher's feature the student's holds. Everything is computed in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mmkd.analysis.samples import as_float64, centred

__all__ = [
    "LEAST_SAMPLES",
    "agreement",
    "between_class_cosine",
    "explained_variance",
    "linear_cka",
]

# Of CKA.
LEAST_SAMPLES = 4

# Of the largest eigenvalue: smaller ones are rounding.
_NULL = 1e-10


def linear_cka(x: Tensor, y: Tensor) -> float:
    """How alike two features are but for a rotation and a scale: ``HSIC(x, y) / sqrt(HSIC(x, x)
    HSIC(y, y))`` of linear kernels. Kornblith et al., *Similarity of Neural Network Representations
    Revisited* (ICML 2019), section 3; with the unbiased estimator of HSIC, which does not rise
    where samples are few (Song et al., *Feature Selection via Dependence Maximization*, JMLR 2012),
    as Nguyen et al. take it (*Do Wide and Deep Networks Learn the Same Things?*, ICLR 2021).

    Args:
        x, y: ``[M, C_x]`` and ``[M, C_y]``.

    Returns:
        1 of equal features; about 0, on either side, of ones without any linear relation; nan where
        a side does not vary.

    Raises:
        ValueError: Other numbers of samples, or fewer than :data:`LEAST_SAMPLES`.
    """
    if len(x) < LEAST_SAMPLES:
        raise ValueError(f"expected {LEAST_SAMPLES} samples or more, got {len(x)}")
    x, y = _centred_pair(x, y)
    own = _unbiased_hsic(x, x) * _unbiased_hsic(y, y)
    if not own > 0:
        return math.nan
    return float(_unbiased_hsic(x, y) / own.sqrt())


def _unbiased_hsic(x: Tensor, y: Tensor) -> Tensor:
    """Of the kernels ``K = x x^T`` and ``L = y y^T`` without their diagonals, never laid out where
    there are fewer channels than samples; times ``M (M - 3)``."""
    count = len(x)
    of_x, of_y = (side.square().sum(dim=1) for side in (x, y))
    if count < max(x.shape[1], y.shape[1]):
        product = ((x @ x.T) * (y @ y.T)).sum()
    else:
        product = (x.T @ y).square().sum()
    rows_x, rows_y = (side @ side.sum(dim=0) - of_side for side, of_side in ((x, of_x), (y, of_y)))
    total = rows_x.sum() * rows_y.sum() / ((count - 1) * (count - 2))
    return product - of_x @ of_y + total - 2 / (count - 2) * (rows_x @ rows_y)


def explained_variance(student: Tensor, teacher: Tensor) -> float:
    """The share of the teacher's variance that the best linear map of the student's feature
    explains, ``1 - (1 - r) (M - 1) / (M - 1 - R)``, ``r = ||X (X^T X)^+ X^T Y||^2 / ||Y||^2`` of
    centred samples and R the rank of X: Wherry's adjustment (1931), without which M samples of
    noise of R dimensions explain R / (M - 1).

    Args:
        student, teacher: ``[M, C_s]`` and ``[M, C_t]``.

    Returns:
        1 or less; about 0, on either side, of noise; nan where the teacher does not vary, and where
        there are no more samples than R + 1.

    Raises:
        ValueError: Other numbers of samples, or fewer than two.
    """
    x, y = _centred_pair(student, teacher)
    total = y.square().sum()
    if total == 0:
        return math.nan
    directions, values, _ = torch.linalg.svd(x, full_matrices=False)
    directions = directions[:, values > _NULL**0.5 * values.max()]
    left = len(x) - 1 - directions.shape[1]
    if left <= 0:
        return math.nan
    unexplained = 1 - (directions.T @ y).square().sum() / total
    return float(1 - unexplained * (len(x) - 1) / left)


def between_class_cosine(features: Tensor, labels: Tensor) -> float:
    """The mean cosine of two samples of different classes, over all such pairs: the global shape of
    a feature (Chen et al., *Improved Feature Distillation via Projector Ensemble*, NeurIPS 2022,
    Figure 2; the paper does not say whether of samples or of their means).

    Args:
        features: ``[M, C]``; a sample of zeros has the cosine 0 with all.
        labels: ``[M]``.

    Returns:
        -1 to 1; nan where all samples are of one class.

    Raises:
        ValueError: Other numbers of features than of labels.
    """
    if features.ndim != 2 or labels.shape != (len(features),):
        raise ValueError(
            f"expected samples [M, C] with a label each, got {tuple(features.shape)} and "
            f"{tuple(labels.shape)}"
        )
    units = torch.nn.functional.normalize(as_float64(features), dim=1)
    is_other = labels[:, None] != labels
    count = int(is_other.sum())
    return float((units @ units.T)[is_other].sum() / count) if count else math.nan


def agreement(student: Tensor, teacher: Tensor) -> float:
    """The share of rows whose largest logit is the same, 0 to 1.

    Args:
        student, teacher: ``[M, K]``.

    Raises:
        ValueError: Shapes that differ.
    """
    if student.shape != teacher.shape or student.ndim != 2 or not len(student):
        raise ValueError(
            f"expected logits [M, K] of one shape, got {tuple(student.shape)} and "
            f"{tuple(teacher.shape)}"
        )
    return float((student.argmax(dim=1) == teacher.argmax(dim=1)).double().mean())


def _centred_pair(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    x, y = centred(x), centred(y)
    if len(x) != len(y):
        raise ValueError(f"expected as many samples on either side, got {len(x)} and {len(y)}")
    return x, y
