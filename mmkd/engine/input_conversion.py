"""From images preprocessed for the student to images preprocessed for the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from mmkd.errors import InputError

__all__ = [
    "ImageFormat",
    "InputConversion",
    "KnownFormat",
    "Order",
    "conversion_between",
    "image_sizes",
]


Order: TypeAlias = Literal["bgr", "rgb"]


@dataclass(frozen=True)
class ImageFormat:
    """What a preprocessor makes of images from 0 to 255.

    Args:
        mean, std: Of each channel, in its own order.
        swapped: Whether it swaps the order in which images are loaded.
        pad_value: Of padding.
        loaded: That order; None where it is not known.
    """

    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    swapped: bool = False
    pad_value: float = 0.0
    loaded: Order | None = "bgr"

    @property
    def order(self) -> Order | None:
        """Of the channels; None where it is not known. Who swaps means to have RGB, unless images
        are known to be loaded so."""
        if not self.swapped:
            return self.loaded
        return "bgr" if self.loaded == "rgb" else "rgb"

    def swaps_to(self, other: ImageFormat) -> bool:
        """Whether the other has the channels in another order.

        Raises:
            ValueError: It cannot be told.
        """
        if self.loaded == other.loaded:
            return self.swapped != other.swapped
        if self.order is None or other.order is None:
            raise ValueError("the order of the images' channels is not known")
        return self.order != other.order

    @classmethod
    def of(cls, preprocessor: nn.Module) -> ImageFormat:
        """Reads the settings of an MMEngine, MMDetection or MMPretrain data preprocessor."""

        def channels(name: str, default: float) -> tuple[float, ...]:
            value = getattr(preprocessor, name, None)
            values = [default] if value is None else value.flatten().tolist()
            return tuple(values * 3 if len(values) == 1 else values)

        swapped = getattr(preprocessor, "_channel_conversion", False) or getattr(
            preprocessor, "to_rgb", False
        )
        pad_value = getattr(preprocessor, "pad_value", 0)
        return cls(
            mean=channels("mean", 0.0),
            std=channels("std", 1.0),
            swapped=bool(swapped),
            pad_value=float(pad_value) if isinstance(pad_value, int | float) else 0.0,
        )


class KnownFormat(NamedTuple):
    """What is known of the images that a model takes.

    Args:
        format: None where nothing is.
        origin: What tells it, or why nothing does.
    """

    format: ImageFormat | None
    origin: str

    def __str__(self) -> str:
        if self.format is None:
            return f"assumed, for {self.origin}"
        mean, std = (
            " ".join(f"{value:.5g}" for value in values)
            for values in (self.format.mean, self.format.std)
        )
        order = "channels as loaded" if self.format.order is None else self.format.order.upper()
        return f"mean {mean}, std {std} of 0 to 255, {order}: {self.origin}"


class InputConversion:
    """Maps images ``[N, 3, H, W]`` from one format to another.

    Args:
        source: Format of the images that come in.
        target: Format of those that go out.
    """

    def __init__(self, source: ImageFormat, target: ImageFormat) -> None:
        self._swap = source.swaps_to(target)
        settings = [(each.mean, each.std, each.pad_value) for each in (source, target)]
        self.is_identity = settings[0] == settings[1] and not self._swap
        order = [2, 1, 0] if self._swap else [0, 1, 2]
        std = torch.tensor([source.std[i] for i in order], dtype=torch.float64)
        mean = torch.tensor([source.mean[i] for i in order], dtype=torch.float64)
        target_std = torch.tensor(target.std, dtype=torch.float64)
        target_mean = torch.tensor(target.mean, dtype=torch.float64)
        self._scale = (std / target_std).view(1, 3, 1, 1)
        self._shift = ((mean - target_mean) / target_std).view(1, 3, 1, 1)
        self._pad_value = target.pad_value

    def __call__(self, images: Tensor, sizes: Sequence[tuple[int, int]] | None = None) -> Tensor:
        """Converts a batch.

        Args:
            images: ``[N, 3, H, W]``.
            sizes: Height and width of each image without its padding (at the right and below).
        """
        if self.is_identity:
            return images
        if self._swap:
            images = images.flip(1)
        converted = images * self._scale.to(images) + self._shift.to(images)
        for image, (height, width) in zip(converted, sizes or (), strict=False):
            image[:, height:] = self._pad_value
            image[:, :, width:] = self._pad_value
        return converted


def conversion_between(
    where: str, student: ImageFormat | None, teacher: ImageFormat | None
) -> InputConversion:
    """From a student's images to a teacher's.

    Args:
        where: The teacher's setting, for errors.
        student: None where its loop has not said it.
        teacher: None where the teacher takes the student's images as they are.

    Raises:
        InputError: The teacher takes images of its own, and the student's are unknown, or the order
            of their channels is.
    """
    if teacher is None:
        return InputConversion(ImageFormat(), ImageFormat())
    if student is None:
        raise InputError(
            f"{where} takes images of its own normalisation, and that of the student's images is "
            "not known: give images=dict(mean=..., std=..., order='rgb')",
            setting=where,
        )
    try:
        return InputConversion(student, teacher)
    except ValueError as error:
        raise InputError.at(
            where,
            f"it takes {(teacher.order or 'other channels').upper()}, and the order in which the "
            "student's images are loaded is not known, for they are not read from files: give "
            "order='student' beside mean= and std= where the student sees them right, or let the "
            "student's preprocessor make them RGB (to_rgb=True)",
        ) from error


def image_sizes(context: Sequence[Any] | None) -> list[tuple[int, int]] | None:
    """Height and width of each image without its padding.

    Args:
        context: MM data samples, or the sizes themselves.

    Returns:
        None unless every image's is known.
    """
    shapes = [
        each if isinstance(each, tuple) else getattr(each, "img_shape", None)
        for each in context or ()
    ]
    sizes = [(int(shape[0]), int(shape[1])) for shape in shapes if shape is not None]
    return sizes if sizes and len(sizes) == len(shapes) else None
