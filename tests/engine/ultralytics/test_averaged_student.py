"""A moving average of the student as its teacher."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from helpers.toy import differences
from helpers.yolo_toy import YOLOToy, attached, end_of, train


def test_a_detector_teaches_itself_across_a_stop(toy: YOLOToy) -> None:
    """Its backbone and its head, which ends in the same bits where it was resumed."""
    classes = dict(
        student="head.classes",
        teacher="head.classes",
        stride="all",
        loss=dict(type="mmkd.BinaryKDLoss"),
    )
    settings: dict[str, Any] = dict(
        terms=dict(backbone=dict(), classes=classes), teacher=dict(ema=0.9)
    )
    folder = toy.folder / "runs" / "after-the-first-epoch"

    def keep(trainer: Any) -> None:
        if not folder.exists():
            shutil.copytree(Path(trainer.save_dir), folder)

    def end(trainer: Any) -> dict[str, Any]:
        [teacher] = trainer.distillation.teachers.values()
        return dict(**end_of(trainer), average=teacher.state.state_dict())

    whole = end(train(toy, attached(toy, **settings), on=dict(on_model_save=keep)))
    stopped = attached(toy, folder / "weights" / "last.pt", **settings)
    resumed = end(train(toy, stopped, resume=True, save_dir=str(folder)))
    for key in ("last", "distillers", "average"):
        assert differences(whole[key], resumed[key]) == []
    assert whole["average"]["n_averaged"] == 8
