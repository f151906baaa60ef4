"""What losses are told of boxes lies where the augmented batch shows the objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import Tensor

from helpers.painted_boxes import Rectangle, large_ones_that_agree, paint
from helpers.yolo_toy import YOLOToy, attached, train
from mmkd.targets import Targets

SIDE = 96
# Height and width in pixels, and what is painted on them; one shows nothing.
IMAGES: list[tuple[tuple[int, int], list[Rectangle]]] = [
    ((60, 90), [(0, (15, 10, 45, 40))]),
    ((90, 60), [(2, (10, 40, 40, 75))]),
    ((48, 120), [(1, (60, 10, 100, 38))]),
    ((96, 96), []),
    ((64, 64), [(0, (10, 10, 30, 25)), (1, (35, 30, 55, 52))]),
    ((80, 100), [(2, (40, 20, 85, 60))]),
    ((100, 80), [(1, (15, 15, 50, 45)), (2, (20, 60, 60, 85))]),
    ((70, 70), [(0, (30, 20, 58, 55))]),
]


def write_set(folder: Path) -> Path:
    """In YOLO's layout; the file that tells of it."""
    for index, ((height, width), rectangles) in enumerate(IMAGES):
        paint(folder / f"images/{index}.png", (height, width), rectangles)
        lines = [
            f"{channel} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} "
            f"{(x2 - x1) / width} {(y2 - y1) / height}\n"
            for channel, (x1, y1, x2, y2) in rectangles
        ]
        labels = folder / f"labels/{index}.txt"
        labels.parent.mkdir(exist_ok=True)
        labels.write_text("".join(lines), encoding="utf-8")
    content = dict(path=str(folder), train="images", val="images", nc=10,
                   names=[str(i) for i in range(10)])  # fmt: skip
    (folder / "data.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder / "data.yaml"


@pytest.mark.parametrize("mosaic", [0.0, 1.0])
def test_boxes_lie_on_what_the_batch_shows(toy: YOLOToy, tmp_path: Path, mosaic: float) -> None:
    """Flipped both ways, moved and scaled, alone or four in one."""
    batches: list[tuple[Tensor, Targets]] = []

    def start(trainer: Any) -> None:
        measure = trainer.distillation.measure

        def noted(inputs: Tensor, context: Any, targets: Targets, *rest: Any) -> Any:
            batches.append((inputs, targets))
            return measure(inputs, context, targets, *rest)

        trainer.distillation.measure = noted

    train(
        toy, attached(toy), on=dict(on_train_start=start), data=str(write_set(tmp_path)),
        epochs=1, batch=4, imgsz=SIDE, val=False, mosaic=mosaic, close_mosaic=0, fliplr=0.5,
        flipud=0.5, translate=0.1, scale=0.2, hsv_h=0.0, hsv_s=0.0, hsv_v=0.0,
    )  # fmt: skip
    assert len(batches) == 2
    count = 0
    for inputs, targets in batches:
        for image, boxes in zip(inputs, targets.boxes, strict=True):
            count += large_ones_that_agree(image, boxes)
    assert count >= (12 if mosaic else 8)
