"""How far the student's classifier is from the teacher's, after Dua, *Insights into the mechanism
behind reusing teacher's classifier in knowledge distillation*, section 2.

K classes, C channels.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from mmkd.extras import extra

__all__ = ["classifier_distance", "pearson_correlation"]


def classifier_distance(student: Tensor, teacher: Tensor) -> float:
    """``mu = ||W_t - W_s||``, the L2 norm over all entries, in float64.

    Args:
        student, teacher: Weights of linear classifiers, ``[K, C]``. They are compared entry by
            entry: equal classifiers whose channels are permuted are far apart (the paper's
            section A.2).

    Raises:
        ValueError: A weight of another rank, or shapes that differ.
    """
    if student.ndim != 2 or student.shape != teacher.shape:
        raise ValueError(
            "expected two classifier weights of one shape [classes, channels], got the student's "
            f"{list(student.shape)} and the teacher's {list(teacher.shape)}"
        )
    difference = teacher.detach().cpu().double() - student.detach().cpu().double()
    return float(torch.linalg.vector_norm(difference))


def pearson_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """``r = sum (x_i - mx)(y_i - my) / sqrt(sum (x_i - mx)^2 sum (y_i - my)^2)``, mx, my the means.

    Args:
        x, y: Two series of one length.

    Returns:
        r in [-1, 1]; nan where it says nothing: fewer than 3 points (2 are always on a line), a
        constant series, or a value that is not finite.

    Raises:
        ValueError: Lengths differ.
    """
    if len(x) != len(y):
        raise ValueError(f"expected two series of one length, got {len(x)} and {len(y)} values")
    if len(x) < 3 or min(x) == max(x) or min(y) == max(y):
        return math.nan
    if not all(map(math.isfinite, (*x, *y))):
        return math.nan
    # Slow to import, and needed only where a training is analysed.
    with extra("mmpretrain", "the correlation of a classifier's alignment"):
        from scipy.stats import pearsonr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of series that are nearly constant.
        return float(pearsonr(x, y).statistic)
