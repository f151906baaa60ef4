"""How much of the teacher's feature the student's holds. Everything is computed in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mmkd.analysis.samples import as_float64, centred

__all__ = ["agreement", "between_class_cosine", "explained_variance", "linear_cka"]

# Of the largest eigenvalue: smaller ones are rounding.
_NULL = 1e-10


def linear_cka(x: Tensor, y: Tensor) -> float:
    """``||Y^T X||^2 / (||X^T X|| ||Y^T Y||)`` of centred samples, in Frobenius norm: 1 for features
    that a rotation and a scale make equal, 0 for ones without any linear relation. Kornblith et
    al., *Similarity of Neural Network Representations Revisited* (ICML 2019), section 3.

    Few samples raise it: it is 1 of any two features where there are fewer samples than channels
    that vary alike. Compare values of one number of samples.

    Args:
        x, y: ``[M, C_x]`` and ``[M, C_y]``.

    Returns:
        0 to 1; nan where a side does not vary.

    Raises:
        ValueError: Other numbers of samples, or fewer than two.
    """
    x, y = _centred_pair(x, y)
    # By whichever side of the matrices is the smaller.
    if len(x) < max(x.shape[1], y.shape[1]):
        of_x, of_y = x @ x.T, y @ y.T
        cross, own = (of_x * of_y).sum(), of_x.norm() * of_y.norm()
    else:
        cross, own = (y.T @ x).square().sum(), (x.T @ x).norm() * (y.T @ y).norm()
    return float(cross / own) if own > 0 else math.nan


def explained_variance(student: Tensor, teacher: Tensor) -> float:
    """The share of the teacher's variance that the best linear map of the student's feature
    explains, ``1 - ||Y - X (X^T X)^+ X^T Y||^2 / ||Y||^2`` of centred samples.

    With M close to C_s, any feature explains much: use several times as many samples as channels.

    Args:
        student, teacher: ``[M, C_s]`` and ``[M, C_t]``.

    Returns:
        0 to 1; nan where the teacher does not vary.

    Raises:
        ValueError: Other numbers of samples, or fewer than two.
    """
    x, y = _centred_pair(student, teacher)
    total = y.square().sum()
    if total == 0:
        return math.nan
    directions, values, _ = torch.linalg.svd(x, full_matrices=False)
    directions = directions[:, values > _NULL**0.5 * values.max()]
    return float((directions.T @ y).square().sum() / total)


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
