"""What is measured about a training, apart from its loss. Mathematics only, no trainer."""

from mmkd.analysis.classifier_alignment import classifier_distance, pearson_correlation
from mmkd.analysis.equivariance import translational_equivariance
from mmkd.analysis.projection import (
    condition_number,
    correlation,
    effective_rank,
    fixed_point_residual,
    input_output_correlation,
    root_mean_square,
    self_correlation,
    singular_values,
)
from mmkd.analysis.similarity import (
    agreement,
    between_class_cosine,
    explained_variance,
    linear_cka,
)
from mmkd.analysis.where import ByPlace, cosine_by_place

__all__ = [
    "ByPlace",
    "agreement",
    "between_class_cosine",
    "classifier_distance",
    "condition_number",
    "correlation",
    "cosine_by_place",
    "effective_rank",
    "explained_variance",
    "fixed_point_residual",
    "input_output_correlation",
    "linear_cka",
    "pearson_correlation",
    "root_mean_square",
    "self_correlation",
    "singular_values",
    "translational_equivariance",
]
