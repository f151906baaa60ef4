"""A timm classifier learns from a larger one, in a training loop of one's own.

The data are scikit-learn's handwritten digits, so that nothing is downloaded. Both networks start
from random weights; with pretrained ones, `pretrained=True` and images normalised as timm says.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Annotated

import timm
import torch
import typer
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from mmkd.engine.plain import PlainDistillation, distill

# Features after pooling, and the logits: the recipe of Miles & Mikolajczyk with KL.
TERMS = dict(
    feature=dict(student="global_pool", teacher="global_pool"),
    kd=dict(student="fc", teacher="fc", loss=dict(type="mmkd.KDLoss", temperature=4.0)),
)
BATCH = 32


def digits(count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images ``[N, 3, 32, 32]`` and labels ``[N]`` for training, likewise for the test."""
    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16 - 0.5
    large = interpolate(images, size=32, mode="bilinear").repeat(1, 3, 1, 1)
    labels = torch.tensor(found.target)
    parts = train_test_split(large, labels, train_size=count, stratify=labels, random_state=0)
    return parts[0], parts[2], parts[1], parts[3]


def batches(images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in random order; a last batch that is not full is left out."""
    for part in torch.randperm(len(images)).split(BATCH):
        if len(part) == BATCH:
            yield images[part], labels[part]


def train(
    model: nn.Module,
    data: list[Tensor],
    epochs: int,
    distillation: PlainDistillation | None = None,
) -> None:
    """Cross-entropy, and the distillation's terms beside it."""
    own = list(distillation.parameters()) if distillation else []
    optimizer = torch.optim.AdamW([*model.parameters(), *own], lr=1e-3)
    model.train()
    with distillation or nullcontext():
        for _ in range(epochs):
            for images, labels in batches(*data):
                loss = cross_entropy(model(images), labels)
                if distillation:
                    loss = loss + distillation.loss(images)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Of the test images, in percent."""
    with torch.no_grad():
        return 100 * (model.eval()(images).argmax(dim=1) == labels).double().mean().item()


def main(
    epochs: Annotated[int, typer.Option(help="Of each student; the teacher gets twice.")] = 4,
    images: Annotated[int, typer.Option(help="For training; the rest is for the test.")] = 400,
    seed: int = 0,
) -> None:
    """Train a teacher, a plain student and the same student with distillation."""
    *data, test_images, test_labels = digits(images)
    torch.manual_seed(seed)
    teacher = timm.create_model("resnet18", num_classes=10)
    train(teacher, data, 2 * epochs)
    print(f"teacher: {accuracy(teacher, test_images, test_labels):.1f}%")
    for name in ("plain", "distilled"):
        torch.manual_seed(seed)
        student = timm.create_model("resnet10t", num_classes=10)
        distillation = distill(student, teacher, TERMS, seed=seed) if name == "distilled" else None
        train(student, data, epochs, distillation)
        print(f"{name} student: {accuracy(student, test_images, test_labels):.1f}%")


if __name__ == "__main__":
    typer.run(main)
