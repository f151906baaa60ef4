"""Boxes as MMDetection's data sets hold them, where a pipeline does not pass them on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mmkd.targets import Boxes

__all__ = ["boxes_in_batch", "boxes_of"]


def boxes_of(instances: Sequence[Mapping[str, Any]]) -> Boxes:
    """The objects of an image that count, in its own pixels, float64.

    Args:
        instances: Of the data set's information on an image.
    """
    shown = [each for each in instances if not each.get("ignore_flag")]
    corners = torch.tensor([each["bbox"] for each in shown], dtype=torch.float64).reshape(-1, 4)
    return Boxes(corners, torch.tensor([each["bbox_label"] for each in shown], dtype=torch.long))


def boxes_in_batch(instances: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> Boxes:
    """The same in pixels of the padded batch, float32: a test's pipeline may leave boxes in those
    of the file.

    Args:
        instances: See :func:`boxes_of`.
        about: ``metainfo`` of the image's data sample.

    Raises:
        ValueError: The image was resized, and nothing says how.
    """
    if "scale_factor" not in about and about.get("img_shape") != about.get("ori_shape"):
        raise ValueError(
            "its validation resizes images and does not say how: add scale_factor to the meta_keys "
            "of PackDetInputs"
        )
    exact, labels = boxes_of(instances)
    corners = exact.float()
    width, height = about.get("scale_factor", (1.0, 1.0))
    # Of pipelines that pad on all sides: top, bottom, left, right.
    top, _, left, _ = about.get("border", (0, 0, 0, 0))
    scale, shift = (corners.new_tensor(each) for each in ([width, height] * 2, [left, top] * 2))
    return Boxes(corners * scale + shift, labels)
