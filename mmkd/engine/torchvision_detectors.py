"""Torchvision's detectors, which normalise, resize and pad inside their own forward pass."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from mmkd.engine.input_conversion import ImageFormat
from mmkd.targets import Boxes, Targets

__all__ = ["Batch", "fixed_size", "forward", "image_format", "is_one"]


def is_one(model: nn.Module) -> bool:
    """Whether ``model`` is a detector of torchvision's (or one on its classes)."""
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

    return isinstance(getattr(model, "transform", None), GeneralizedRCNNTransform)


def image_format(model: Any) -> ImageFormat:
    """Of the images that its transform gives to its backbone: RGB, padded with 0."""
    mean, std = (
        tuple(255.0 * value for value in values)
        for values in (model.transform.image_mean, model.transform.image_std)
    )
    return ImageFormat(mean=mean, std=std, swapped=True)


def fixed_size(model: Any) -> tuple[int, int] | None:
    """Height and width to which its transform resizes every image; None where they vary."""
    size = model.transform.fixed_size
    return None if size is None else (size[1], size[0])


def forward(model: Any, inputs: Tensor, context: Any = None) -> Any:
    """Its backbone on images that are normalised, resized and padded already.

    The parts behind it need proposals or anchors of its own images, and cannot be tapped.
    """
    return model.backbone(inputs)


class Batch(NamedTuple):
    """What a detector's own transform made of its images, for its backbone.

    Args:
        images: ``[N, 3, H, W]``, normalised, resized and padded.
        sizes: Height and width of each image without its padding.
        targets: The objects in pixels of ``images``; None where it was given none.
    """

    images: Tensor
    sizes: list[tuple[int, int]]
    targets: Targets | None

    @classmethod
    def of(cls, output: Any) -> Batch:
        """From what the transform returns: an ImageList, and the targets."""
        listed, targets = output
        boxes = None
        if targets is not None:
            # Torchvision counts from 1, for 0 is the background.
            boxes = [Boxes(each["boxes"], each["labels"] - 1) for each in targets]
        size = (listed.tensors.shape[2], listed.tensors.shape[3])
        return cls(
            listed.tensors,
            list(listed.image_sizes),
            None if boxes is None else Targets(size, boxes=boxes),
        )
