"""What losses are told of boxes lies where the padded batch shows the objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from torch import Tensor

from helpers.detection_methods import MAPS
from helpers.mm_detectors import training_config, write_teacher
from helpers.painted_boxes import Rectangle, large_ones_that_agree, paint, seen_in
from helpers.toy import Probe, distill, distill_hook_of, train
from mmkd.targets import Targets

# Height and width in pixels, and what is painted on them; the last shows nothing.
IMAGES: list[tuple[tuple[int, int], list[Rectangle]]] = [
    ((60, 90), [(0, (10, 8, 40, 30)), (1, (60, 35, 80, 55))]),
    ((90, 60), [(2, (5, 40, 30, 85))]),
    ((48, 120), [(0, (70, 10, 110, 40)), (2, (20, 5, 50, 25)), (0, (5, 30, 15, 45))]),
    ((64, 64), []),
]


def write_set(folder: Path) -> None:
    """In COCO's layout, each image twice."""
    images, annotations = [], []
    for index, (size, rectangles) in enumerate(IMAGES * 2):
        paint(folder / f"train/{index}.png", size, rectangles)
        images.append(dict(id=index, file_name=f"{index}.png", height=size[0], width=size[1]))
        for channel, (x1, y1, x2, y2) in rectangles:
            box = [x1, y1, x2 - x1, y2 - y1]
            annotations.append(
                dict(id=len(annotations) + 1, image_id=index, category_id=channel + 1, bbox=box,
                     area=box[2] * box[3], iscrowd=0)
            )  # fmt: skip
    categories = [dict(id=channel + 1, name=str(channel)) for channel in range(10)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (folder / "annotations").mkdir()
    (folder / "annotations/train.json").write_text(json.dumps(content), encoding="utf-8")


def measured_batches(config: Config, folder: Path) -> list[tuple[Tensor, Any, Targets]]:
    """What a training's distillation was given: inputs, data samples and targets."""
    terms = dict(fgfi=MAPS["fgfi"])
    config.merge_from_dict(distill(write_teacher("retinanet", folder), terms))
    batches: list[tuple[Tensor, Any, Targets]] = []

    def watch(runner: Runner) -> None:
        distillation = distill_hook_of(runner).distillation
        assert distillation is not None
        measure = distillation.measure

        def noted(inputs: Tensor, context: Any, targets: Targets, *rest: Any) -> Any:
            batches.append((inputs, context, targets))
            return measure(inputs, context, targets, *rest)

        distillation.measure = noted  # type: ignore[method-assign]

    train(config, Probe(before_train=watch))
    return batches


def test_boxes_lie_on_what_the_padded_batch_shows(tmp_path: Path) -> None:
    """Resized and flipped by the pipeline, of several sizes, of which none is the batch's."""
    write_set(tmp_path / "painted")
    config = training_config("retinanet", tmp_path / "painted", tmp_path)
    dataset = config.train_dataloader.dataset
    dataset.filter_cfg = dict(filter_empty_gt=False)
    resize = next(step for step in dataset.pipeline if step.type == "Resize")
    resize.scale = (110, 80)
    flip = dict(type="RandomFlip", prob=[0.4, 0.4], direction=["horizontal", "vertical"])
    dataset.pipeline.insert(-1, flip)
    config.train_dataloader.batch_size = 4
    config.train_dataloader.sampler.shuffle = False
    config.model.data_preprocessor.bgr_to_rgb = True
    config.randomness = dict(seed=4)
    batches = measured_batches(config, tmp_path)
    assert len(batches) == 2
    flips, sizes = set(), set()
    for inputs, samples, targets in batches:
        assert targets.size == inputs.shape[2:]
        for image, sample, boxes, (_, painted) in zip(
            inputs, samples, targets.boxes, IMAGES, strict=True
        ):
            flips.add(sample.flip_direction)
            sizes.add(sample.img_shape)
            told = zip(boxes.classes.tolist(), boxes.corners.tolist(), strict=True)
            seen = sorted(seen_in(image))
            assert len(seen) == len(painted)
            for (channel, corners), (label, given) in zip(seen, sorted(told), strict=True):
                assert channel == label
                # Edges are blurred by a pixel.
                assert given == pytest.approx(corners, abs=1)
    assert flips == {None, "horizontal", "vertical"}
    assert len(sizes) == 4 and targets.size not in sizes


def test_boxes_lie_on_what_a_mosaic_shows(tmp_path: Path) -> None:
    """Four images in one, moved, scaled and cut as YOLOX and RTMDet do."""
    write_set(tmp_path / "painted")
    config = training_config("retinanet", tmp_path / "painted", tmp_path)
    inner = config.train_dataloader.dataset
    inner.filter_cfg = dict(filter_empty_gt=False)
    inner.pipeline = [step for step in inner.pipeline if step.type.startswith("Load")]
    config.train_dataloader.dataset = dict(
        type="MultiImageMixDataset",
        dataset=inner,
        pipeline=[
            dict(type="Mosaic", img_scale=(96, 96), pad_val=114.0),
            dict(
                type="RandomAffine",
                max_rotate_degree=0.0,
                max_shear_degree=0.0,
                scaling_ratio_range=(0.8, 1.2),
                border=(-48, -48),
                border_val=(114, 114, 114),
            ),
            dict(type="RandomFlip", prob=0.5),
            dict(type="FilterAnnotations", min_gt_bbox_wh=(1, 1), keep_empty=False),
            dict(type="PackDetInputs"),
        ],
    )
    config.train_dataloader.batch_size = 4
    config.model.data_preprocessor.bgr_to_rgb = True
    config.randomness = dict(seed=1)
    batches = measured_batches(config, tmp_path)
    assert len(batches) == 2
    count = sum(
        large_ones_that_agree(image, boxes)
        for inputs, _, targets in batches
        for image, boxes in zip(inputs, targets.boxes, strict=True)
    )
    assert count >= 12
