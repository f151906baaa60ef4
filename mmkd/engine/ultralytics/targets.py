"""What a batch of Ultralytics' says that the images show."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmkd.targets import Boxes, Targets

__all__ = ["targets_of"]


def targets_of(batch: dict[str, Any], dataset: Any) -> Targets:
    """Of a batch as the trainer preprocessed it.

    Args:
        batch: With ``img`` ``[N, 3, H, W]``, ``batch_idx``, ``cls`` and ``bboxes``, which are
            centres and sizes as shares of the padded image. It holds no labels of whole images.
        dataset: That the images come from, whose ``im_files`` give their positions. An image made
            of several (mosaic) counts as the first.
    """
    height, width = batch["img"].shape[2:]
    return Targets(
        (height, width),
        boxes=lambda: _boxes(batch, height, width),
        indices=lambda: _indices(batch, dataset),
    )


def _boxes(batch: dict[str, Any], height: int, width: int) -> list[Boxes]:
    device = batch["img"].device
    image, classes, boxes = (batch[key].to(device) for key in ("batch_idx", "cls", "bboxes"))
    half = boxes[:, 2:] / 2
    size = boxes.new_tensor([width, height, width, height])
    corners = torch.cat([boxes[:, :2] - half, boxes[:, :2] + half], dim=1) * size
    is_of = [image == index for index in range(len(batch["img"]))]
    return [Boxes(corners[mask], classes[mask].reshape(-1).long()) for mask in is_of]


def _indices(batch: dict[str, Any], dataset: Any) -> Tensor:
    positions = {file: index for index, file in enumerate(dataset.im_files)}
    found = [positions[file] for file in batch["im_file"]]
    return torch.tensor(found, device=batch["img"].device)
