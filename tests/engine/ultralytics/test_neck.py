"""Losses on maps at YOLOv5's neck, held to their definitions in float64; boxes and images too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from ultralytics.utils.torch_utils import unwrap_model

import helpers.own_distiller  # noqa: F401  (registers it)
from helpers.loss_references import cwd_by_loops, pkd_by_loops
from helpers.yolo_toy import SIZE, YOLOToy, attached, train
from mmkd.losses import Loss, Takes
from mmkd.registry import MODELS
from mmkd.targets import Targets

BY_LOOPS = dict(PKDLoss=pkd_by_loops, CWDLoss=cwd_by_loops)
# The head reads the layers 7 and 4.
NECK = ("model.7", "model.4")


class Stop(Exception):
    """Ends a training where enough was seen."""


@pytest.mark.parametrize("loss", BY_LOOPS)
def test_on_every_level(toy: YOLOToy, loss: str) -> None:
    seen: dict[str, list[Tensor]] = {}
    distances: list[dict[str, float]] = []
    state: dict[str, Tensor] = {}

    def start(trainer: Any) -> None:
        models = dict(
            student=unwrap_model(trainer.model),
            teacher=trainer.distillation.teachers["teacher"].model,
        )
        for side, model in models.items():
            for path in NECK:
                found = seen.setdefault(f"{side} {path}", [])
                model.get_submodule(path).register_forward_hook(
                    lambda m, args, output, found=found: found.append(output.detach().clone()),
                    # Before the tap's own hook, which ends the teacher's forward pass.
                    prepend=True,
                )
        state.update({k: v.clone() for k, v in trainer.distillation.state_dict().items()})
        measure = trainer.distillation.measure

        def measured(*args: Any) -> Any:
            result = measure(*args)
            distances.append({name: float(each.distance) for name, each in result.items()})
            raise Stop

        trainer.distillation.measure = measured

    terms = dict(
        p=dict(student="neck", teacher="neck", level=[0, 1], loss=dict(type=f"mmkd.{loss}"))
    )
    with pytest.raises(Stop):
        train(toy, attached(toy, terms=terms), on=dict(on_train_start=start))
    for level, path in enumerate(NECK):
        weight = state[f"p_{level}.projector.linear.weight"].double()
        bias = state[f"p_{level}.projector.linear.bias"].double()
        ours = seen[f"student {path}"][-1].double()
        projected = torch.einsum("nchw,kc->nkhw", ours, weight) + bias.view(1, -1, 1, 1)
        expected = BY_LOOPS[loss](projected, seen[f"teacher {path}"][-1])
        assert distances[0][f"p_{level}"] == pytest.approx(expected, rel=1e-4)


@MODELS.register_module()
class Told(Loss):
    """Keeps what it is told of the images."""

    takes = Takes(form="maps", targets=("boxes", "indices"))
    targets: list[Targets]

    def forward(self, student: Tensor, teacher: Tensor, *, targets: Targets) -> Tensor:
        Told.targets.append(targets)
        return (student - teacher).square().mean()


def test_boxes_and_positions_of_the_images(toy: YOLOToy) -> None:
    """Of batches without mosaic or flips: the data set's own boxes, in pixels."""
    Told.targets = []
    batches: list[dict[str, Any]] = []

    def start(trainer: Any) -> None:
        preprocess = trainer.preprocess_batch

        def keep(batch: dict) -> dict:
            batches.append(preprocess(batch))
            return batches[-1]

        trainer.preprocess_batch = keep

    terms = dict(one=dict(student="neck", teacher="neck", loss=dict(type="Told")))
    plain = dict(mosaic=0.0, fliplr=0.0, scale=0.0, translate=0.0, hsv_h=0.0, hsv_s=0.0, hsv_v=0.0)
    trainer = train(toy, attached(toy, terms=terms), on=dict(on_train_start=start), **plain)
    dataset = trainer.train_loader.dataset
    assert len(Told.targets) == len(batches) == 8
    for targets, batch in zip(Told.targets, batches, strict=True):
        assert targets.size == (SIZE, SIZE)
        assert len(targets.boxes) == len(targets.indices) == len(batch["img"])
        for boxes, index in zip(targets.boxes, targets.indices.tolist(), strict=True):
            label = dataset.labels[index]
            centres, sizes = (
                torch.tensor(label["bboxes"][:, part] * SIZE) for part in (slice(0, 2), slice(2, 4))
            )
            expected = torch.cat([centres - sizes / 2, centres + sizes / 2], dim=1)
            torch.testing.assert_close(boxes.corners.cpu(), expected, rtol=0, atol=0.02)
            assert boxes.classes.tolist() == label["cls"].ravel().tolist()
        with pytest.raises(ValueError, match="asks for class labels"):
            _ = targets.labels


def test_a_distiller_of_its_own_type(toy: YOLOToy) -> None:
    term = dict(type="FusionWithMemory", student="neck", teacher="neck", levels=[0, 1])
    first: dict[str, Tensor] = {}

    def start(trainer: Any) -> None:
        first.update({k: v.clone() for k, v in trainer.distillation.state_dict().items()})

    model = attached(toy, terms=dict(own=dict(term, num_images=16)))
    trainer = train(toy, model, on=dict(on_train_start=start))
    assert [str(tap) for tap in trainer.distillation.terms[0].student] == [f"{p}[-1]" for p in NECK]
    state = trainer.distillation.state_dict()
    assert state.keys() == first.keys() and "own.memory" in state
    assert all(not torch.equal(value, first[name]) for name, value in state.items())
