"""What is recorded inside a distillation of Ultralytics' trainer, and that looking changes
nothing."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from ultralytics.utils.callbacks import tensorboard

from helpers.toy import differences
from helpers.yolo_toy import (
    TAP,
    TERM,
    Stopped,
    YOLOToy,
    attached,
    distil,
    end_of,
    network,
    read_results,
    stop_at,
    train,
)
from mmkd.analysis import linear_cka
from mmkd.dynamics_file import DynamicsRow, read_dynamics
from mmkd.engine.ultralytics import DistillCallback
from mmkd.errors import InputError
from mmkd.features import pair_as_samples
from mmkd.work_dirs import read_work_dir

TERMS = {TERM: dict(weight=dict(share=0.3))}


def looked_at(toy: YOLOToy, dynamics: Any = None, **args: Any) -> Any:
    """A trainer that recorded of 6 images."""
    return train(
        toy, attached(toy, terms=TERMS, dynamics=dynamics or dict(images=6, interval=1)), **args
    )


def rows(trainer: Any) -> list[DynamicsRow]:
    return list(read_dynamics(Path(trainer.save_dir) / "dynamics.csv"))


def test_looking_changes_nothing(toy: YOLOToy) -> None:
    plain = distil(toy, TERMS)
    recorded = looked_at(toy)
    assert not differences(end_of(plain), end_of(recorded))
    assert list(read_results(plain)) == list(read_results(recorded))


def test_values_are_those_of_the_student_and_the_images(toy: YOLOToy) -> None:
    trainer = looked_at(toy, val=False)
    files = sorted((toy.data.parent / "images" / "val").iterdir())
    images = torch.stack(
        [torch.frombuffer(Image.open(f).convert("RGB").tobytes(), dtype=torch.uint8) for f in files]
    )
    images = images.reshape(-1, 64, 64, 3).permute(0, 3, 1, 2).float() / 255
    student = network(trainer).eval()
    kept: dict[str, torch.Tensor] = {}
    student.get_submodule(TAP).register_forward_hook(lambda m, a, out: kept.update(ours=out))
    with torch.no_grad():
        student(images)
    [theirs] = trainer.distillation.teachers["teacher"].features(images).values()
    expected = linear_cka(*pair_as_samples(kept["ours"], theirs, "dense"))
    [row] = [r for r in rows(trainer) if r[:2] == (2, "val") and r.measure == "cka"]
    assert row.value == pytest.approx(expected, rel=1e-4)
    measures = {row.measure for row in rows(trainer) if row.images == "val"}
    assert {"cka", "explained_variance", "cosine_inside"} <= measures
    assert {"gradient_share", "gradient_cosine"} <= {row.measure for row in rows(trainer)}
    assert {row.step for row in rows(trainer)} == {1, 2}


def test_loggers_and_the_report_are_told(toy: YOLOToy, monkeypatch: pytest.MonkeyPatch) -> None:
    written: defaultdict[str, dict[int, float]] = defaultdict(dict)

    class Writer:
        def add_scalar(self, name: str, value: float, step: int) -> None:
            written[name][step] = float(value)

    monkeypatch.setattr(tensorboard, "WRITER", Writer(), raising=False)
    on = dict(on_train_epoch_end=tensorboard.on_train_epoch_end)
    trainer = looked_at(toy, dict(images=4, interval=2), on=on)
    name = f"dynamics/{TERM}/cka"
    [row] = [row for row in rows(trainer) if row.name == name]
    assert written[name] == {2: row.value}
    curves = {curve.name: curve for curve in read_work_dir(Path(trainer.save_dir)).curves}
    assert curves[name].points == [(2, row.value)]
    assert curves[name].group == "dynamics"
    assert f"dynamics/{TERM}/val_cka" in curves


def test_a_resumed_run_goes_on_with_the_file(toy: YOLOToy) -> None:
    whole = rows(looked_at(toy))
    model = attached(toy, terms=TERMS, dynamics=dict(images=6, interval=1))
    with pytest.raises(Stopped):
        train(toy, model, on=stop_at(1))
    folder = Path(model.trainer.save_dir)
    resumed = attached(
        toy, folder / "weights" / "last.pt", terms=TERMS, dynamics=dict(images=6, interval=1)
    )
    assert rows(train(toy, resumed, resume=True)) == whole


@pytest.mark.parametrize(
    ("dynamics", "message"),
    [
        (dict(images=0), "DistillCallback dynamics.images: expected a number from 1 on, got 0"),
        (dict(every=2), "DistillCallback dynamics: expected True, or a dict of"),
        ("yes", "DistillCallback dynamics: expected True, or a dict of"),
    ],
)
def test_what_it_refuses(toy: YOLOToy, dynamics: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        DistillCallback(teacher=str(toy.teacher), dynamics=dynamics)


def test_a_training_that_stops_early_is_recorded_to_its_end(toy: YOLOToy) -> None:
    def stop(trainer: Any) -> None:
        trainer.stop = trainer.epoch == 1

    on = dict(on_fit_epoch_end=stop)
    trainer = looked_at(toy, dict(images=4, interval=5), on=on, epochs=4)
    assert {row.step for row in rows(trainer)} == {2}
