"""A small student and loops of one's own around it; run by torchrun, two processes of one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import helpers.own_distiller  # noqa: F401  (registers it)
from mmkd.engine.plain import PlainDistillation, distill

BATCH = 4


class Net(nn.Module):
    """A backbone of two convolutions, and a classifier of three classes."""

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1),
            nn.Tanh(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.dropout(self.backbone(images).mean(dim=(2, 3))))


def net(width: int, seed: int = 0, dropout: float = 0.0) -> Net:
    """With weights of its own seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net(width, dropout)


def batch(seed: int = 0, size: int = BATCH) -> tuple[Tensor, Tensor]:
    """Images ``[N, 3, 16, 16]`` and labels ``[N]``."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(size, 3, 16, 16, generator=generator)
    return images, torch.randint(3, (size,), generator=generator)


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of everything in its state."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def optimizer(student: nn.Module, distillation: PlainDistillation | None) -> torch.optim.SGD:
    """Of both."""
    own = list(distillation.parameters()) if distillation else []
    return torch.optim.SGD([*student.parameters(), *own], lr=0.05, momentum=0.9)


def trained(
    student: nn.Module,
    distillation: PlainDistillation | None,
    steps: int,
    start: int = 0,
    optimizer: torch.optim.Optimizer | None = None,
) -> list[float]:
    """A training from the batch ``start`` on; the distillation's losses."""
    step = optimizer or globals()["optimizer"](student, distillation)
    torch.manual_seed(start)
    losses = []
    student.train()
    if distillation:
        distillation.__enter__()
    for index in range(start, start + steps):
        images, labels = batch(index)
        loss = cross_entropy(student(images), labels)
        if distillation:
            distilled = distillation.loss(images)
            losses.append(distilled.item())
            loss = loss + distilled
        step.zero_grad()
        loss.backward()
        step.step()
    if distillation:
        distillation.__exit__(None, None, None)
    return losses


def all_weights(student: nn.Module, distillation: PlainDistillation) -> dict[str, Tensor]:
    """The student's and the projectors'."""
    own = {f"projector.{i}": p.detach().clone() for i, p in enumerate(distillation.parameters())}
    return {**weights(student), **own}


def two_steps(student: nn.Module, share: slice) -> tuple[dict, dict]:
    """Weights before and after two steps on a share of each joined batch."""
    teacher = net(6, seed=1)
    # The projectors of each process begin elsewhere, until the first one's are taken over.
    seed = int(os.environ.get("RANK", 0))
    terms = dict(
        one=dict(),
        two=dict(view="global"),
        pkd=dict(student="backbone.0", teacher="backbone.0", loss=dict(type="mmkd.PKDLoss")),
        own=dict(type="Fusion", levels=[-1]),
    )
    distillation = distill(student, teacher, terms, seed=seed)
    inner = getattr(student, "module", student)
    initial = all_weights(inner, distillation)
    step = optimizer(student, distillation)
    student.train()
    with distillation:
        for index in range(2):
            images, labels = (each[share] for each in batch(index, 2 * BATCH))
            loss = cross_entropy(student(images), labels) + distillation.loss(images)
            step.zero_grad()
            loss.backward()
            step.step()
    return initial, all_weights(inner, distillation)


def joined() -> dict[str, Tensor]:
    """The weights after the same two steps in one process."""
    return two_steps(net(4), slice(None))[1]


def main(folder: Path) -> None:
    """One of the two processes."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    share = slice(rank * BATCH, (rank + 1) * BATCH)
    initial, final = two_steps(DistributedDataParallel(net(4)), share)
    torch.save(dict(initial=initial, final=final), folder / f"rank{rank}.pt")
    sys.stdout.flush()
    # Not by the interpreter's own end, in which torch may wait for gloo for ever.
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
