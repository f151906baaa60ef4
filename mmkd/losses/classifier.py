"""Losses that look at features through a classifier."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import linear

from mmkd.losses.base import Loss

__all__ = ["ClassifierLoss"]


class ClassifierLoss(Loss):
    """A loss that looks at features through a model's last linear layer.

    Args:
        classifier: The layer, ``[M, C] -> [M, K]``. It stays a part of its model.
        num_channels: C, checked against it; None for no check.

    Raises:
        ValueError: A classifier that is not linear or takes other channels.
    """

    def __init__(self, classifier: nn.Module, num_channels: int | None) -> None:
        super().__init__()
        if not isinstance(classifier, nn.Linear):
            raise ValueError(
                f"the classifier must be a linear layer, got a {type(classifier).__name__}"
            )
        if num_channels is not None and classifier.in_features != num_channels:
            raise ValueError(
                f"the classifier takes {classifier.in_features} channels, the teacher's feature "
                f"has {num_channels}: tap what it classifies (backbone, with view='global')"
            )
        # Not a submodule: it belongs to the model it was taken from.
        self._classifier = (classifier,)

    def classify(self, samples: Tensor) -> Tensor:
        """Logits ``[M, K]`` of samples ``[M, C]``."""
        # Not by a call: what the model's own call of it gave stays what is tapped.
        layer = self._classifier[0]
        bias = None if layer.bias is None else layer.bias.to(samples.dtype)
        return linear(samples, layer.weight.to(samples.dtype), bias)
