"""What is measured about a training, apart from its loss. Mathematics only, no trainer."""

from mmkd.analysis.classifier_alignment import classifier_distance, pearson_correlation

__all__ = ["classifier_distance", "pearson_correlation"]
