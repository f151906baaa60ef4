"""Torchvision's own Faster R-CNN learns from a larger one, in a training loop of one's own.

These detectors normalise, resize and pad inside; the teacher sees what the student's backbone saw.
The data are handwritten digits that mmkd makes, so that nothing is downloaded. Both networks start
from random weights; with pretrained ones, `weights="DEFAULT"`.
"""

from __future__ import annotations

import random
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import torch
import typer
from pycocotools.coco import COCO
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.models.detection import (
    FasterRCNN,
    fasterrcnn_mobilenet_v3_large_fpn,
    fasterrcnn_resnet50_fpn,
)
from torchvision.transforms.v2.functional import to_dtype, to_image

from mmkd.data import make_digits
from mmkd.engine.plain import PlainDistillation, distill

# The last two stages of either body; Faster R-CNN calls its outputs '0', '1', ...
TERMS = dict(
    body=dict(
        student="backbone.body", teacher="backbone.body", student_level="1", teacher_level="3"
    ),
)
# Digits and background; small images for a CPU.
SETTINGS = dict(weights=None, weights_backbone=None, num_classes=11, min_size=96, max_size=96)


def pairs(data: Path, split: str) -> DataLoader:
    """Batches of images ``[3, H, W]`` between 0 and 1, and of targets as torchvision takes them."""
    dataset = CocoDetection(data / split, data / f"annotations/{split}.json")
    typed = wrap_dataset_for_transforms_v2(dataset, target_keys=("boxes", "labels"))

    def collate(batch: list) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
        images = [to_dtype(to_image(image), torch.float32, scale=True) for image, _ in batch]
        return images, [target for _, target in batch]

    return DataLoader(typed, batch_size=4, shuffle=True, drop_last=True, collate_fn=collate)


def train(
    model: FasterRCNN,
    loader: DataLoader,
    epochs: int,
    distillation: PlainDistillation | None = None,
) -> list[float]:
    """Torchvision's losses, and the distillation's terms beside them; the mean of each epoch."""
    own = list(distillation.parameters()) if distillation else []
    parameters = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW([*parameters, *own], lr=3e-4)
    model.train()
    means = []
    with distillation or nullcontext():
        for _ in range(epochs):
            task = []
            for images, targets in loader:
                losses = model(images, targets)
                loss = sum(losses.values())
                task.append(loss.item())
                if distillation:
                    loss = loss + distillation.loss(images)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_([*parameters, *own], 10.0)
                optimizer.step()
            means.append(sum(task) / len(task))
    return means


def main(
    data: Annotated[Path, typer.Option(help="Folder for the digits.")] = Path(
        "data/example_digits"
    ),
    epochs: Annotated[int, typer.Option(help="Of each network.")] = 3,
    images: Annotated[int, typer.Option(help="For training.")] = 200,
    seed: int = 0,
) -> None:
    """Train a teacher, a plain student and the same student with distillation."""
    make_digits(data, num_train=images, num_val=20)
    classes = COCO(data / "annotations/train.json").cats
    print(f"{images} images of {len(classes)} classes")
    torch.manual_seed(seed)
    teacher = fasterrcnn_resnet50_fpn(**SETTINGS, trainable_backbone_layers=5)
    print("teacher:", *(f"{each:.3f}" for each in train(teacher, pairs(data, "train"), epochs)))
    for name in ("plain", "distilled"):
        torch.manual_seed(seed)
        random.seed(seed)
        student = fasterrcnn_mobilenet_v3_large_fpn(**SETTINGS, trainable_backbone_layers=6)
        distillation = distill(student, teacher, TERMS, seed=seed) if name == "distilled" else None
        means = train(student, pairs(data, "train"), epochs, distillation)
        print(f"{name} student, task loss by epoch:", *(f"{each:.3f}" for each in means))


if __name__ == "__main__":
    typer.run(main)
