"""Which images a model takes, as far as it tells or its library's models all do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from mmkd.engine import torchvision_detectors
from mmkd.engine.input_conversion import ImageFormat, KnownFormat

__all__ = ["format_of"]

# Of RGB images from 0 to 1, as torchvision's classifiers and segmenters were trained on.
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
# Parts of torchvision.models whose networks have other constants, or none of their own.
_OTHER_KINDS = ("detection", "video", "optical_flow")


def format_of(model: nn.Module, beside: ImageFormat | None = None) -> KnownFormat:
    """Of the images that a model was made for.

    What it does to images itself is known for sure; timm's and torchvision's networks leave that
    to the training, and have the constants of their pretrained weights.

    Args:
        model: The model.
        beside: The student's; the model's own preprocessor is taken to count from the same loaded
            order.
    """
    # What torch.compile wraps.
    model = getattr(model, "_orig_mod", model)
    if torchvision_detectors.is_one(model):
        return KnownFormat(torchvision_detectors.image_format(model), "its own transform")
    preprocessor = getattr(model, "data_preprocessor", None)
    if preprocessor is not None:
        own = ImageFormat.of(preprocessor)
        loaded = own.loaded if beside is None else beside.loaded
        return KnownFormat(replace(own, loaded=loaded), "its data preprocessor")
    constants = _timm_constants(model)
    if constants is not None:
        return KnownFormat(_of_unit_images(*constants), "timm's pretrained_cfg")
    constants = _torchvision_constants(model)
    if constants is not None:
        return KnownFormat(_of_unit_images(*constants), "torchvision's weights of this network")
    return KnownFormat(None, "it tells no normalisation of its own")


def _of_unit_images(mean: Any, std: Any) -> ImageFormat:
    """From constants of RGB images from 0 to 1."""
    scaled = [tuple(255.0 * float(each) for each in values) for values in (mean, std)]
    return ImageFormat(mean=scaled[0], std=scaled[1], swapped=True)


def _timm_constants(model: Any) -> tuple[Any, Any] | None:
    settings = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    if not isinstance(settings, Mapping):
        return None
    mean, std = settings.get("mean"), settings.get("std")
    is_known = mean is not None and std is not None and len(mean) == len(std) == 3
    return (mean, std) if is_known else None


def _torchvision_constants(model: nn.Module) -> tuple[Any, Any] | None:
    rooms = [kind.__module__.partition(".models.") for kind in type(model).__mro__]
    kinds = [kind for package, _, kind in rooms if package == "torchvision" and kind]
    if not kinds or kinds[0].startswith(("_", *_OTHER_KINDS)):
        return None
    return _HALF if _is_efficientnet_v2_l(model) else _IMAGENET


def _is_efficientnet_v2_l(model: Any) -> bool:
    """The one classifier with constants of its own: the only V2 whose stem is 32 wide."""
    from torchvision.models.efficientnet import EfficientNet, FusedMBConv

    if not isinstance(model, EfficientNet):
        return False
    stem, first = model.features[0], model.features[1][0]
    return isinstance(first, FusedMBConv) and stem[0].out_channels == 32
