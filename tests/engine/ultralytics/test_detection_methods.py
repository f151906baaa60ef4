"""Every method in real trainings of Ultralytics' detectors, held to values taken beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import ultralytics
import yaml
from torch import Tensor
from ultralytics import YOLO

from helpers.detection_methods import MAPS, SCORED, of_head
from helpers.yolo_toy import YOLOToy, attached, network, train, write_teacher
from mmkd.losses import BinaryKDLoss
from mmkd.losses.ld import localization_distillation

MODELS = Path(ultralytics.__file__).parent / "cfg/models"
DEFINITIONS = {"yolov5": "v5/yolov5", "yolov8": "v8/yolov8", "yolo11": "11/yolo11"}
STRIDES = (8, 16, 32)
BATCHES = 2


def definition(toy: YOLOToy, family: str, width: float, role: str) -> Path:
    """Ultralytics' own, as narrow as it comes, for the digits."""
    path = DEFINITIONS.get(family, "26/yolo26")
    content = yaml.safe_load((MODELS / f"{path}.yaml").read_text(encoding="utf-8"))
    content |= dict(nc=10, scales={"n": [0.33, width, 1024]})
    file = toy.folder / role / f"{family}n.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


TERMS = {
    **MAPS,
    "scored": SCORED,
    "logits": of_head("head.classes", "mmkd.CWDLoss"),
    "kd": of_head("head.classes", "mmkd.BinaryKDLoss", temperature=2.0),
}
LD = dict(ld=of_head("head.boxes", "mmkd.LDLoss"))


@pytest.mark.parametrize("family", [*DEFINITIONS, "yolo26"])
def test_methods(toy: YOLOToy, family: str) -> None:
    teacher = write_teacher(definition(toy, family, 0.25, "teacher"))
    student = definition(toy, family, 0.125, "student")
    # YOLO26 predicts no distributions.
    has_bins = family != "yolo26"
    terms = {**TERMS, **(LD if has_bins else {})}
    measured: list[dict[str, float]] = []
    heads: dict[str, list[dict[str, Tensor]]] = dict(student=[], teacher=[])

    def start(trainer: Any) -> None:
        sides = dict(
            student=network(trainer), teacher=trainer.distillation.teachers["teacher"].model
        )
        for side, model in sides.items():
            last = model.model[-1]
            for name in ("cv2", "cv3"):
                for level, module in enumerate(getattr(last, name)):
                    module.register_forward_hook(
                        keeping(heads[side], f"{name}.{level}"), prepend=True
                    )
        measure = trainer.distillation.measure

        def noted(*args: Any, **settings: Any) -> Any:
            found = measure(*args, **settings)
            measured.append({name: float(each.distance) for name, each in found.items()})
            return found

        trainer.distillation.measure = noted

    def keeping(found: list[dict[str, Tensor]], name: str) -> Any:
        def keep(module: Any, args: Any, output: Tensor) -> None:
            if name == "cv2.0":
                found.append({})
            if found:
                found[-1][name] = output.detach().clone()

        return keep

    model = attached(toy, YOLO(student), terms=terms, teacher=str(teacher))
    train(toy, model, on=dict(on_train_start=start), epochs=1, batch=8, nbs=8, val=False)
    assert len(measured) == BATCHES
    for index, each in enumerate(measured):
        assert all(0 < value < 1e7 for value in each.values())
        ours, theirs = heads["student"][index], heads["teacher"][index]
        scores = [theirs[f"cv3.{level}"].sigmoid().amax(1, True) for level in range(3)]
        total = torch.stack([level.sum() for level in scores]).sum()
        for level, stride in enumerate(STRIDES):
            rows = (
                side[f"cv3.{level}"].permute(0, 2, 3, 1).flatten(0, 2) for side in (ours, theirs)
            )
            expected = BinaryKDLoss(2.0)(*rows).item()
            assert each[f"kd_s{stride}"] == pytest.approx(expected, rel=1e-4)
            if has_bins:
                boxes = (side[f"cv2.{level}"] for side in (ours, theirs))
                expected = localization_distillation(*boxes, scores[level], total=total).item()
                assert each[f"ld_s{stride}"] == pytest.approx(expected, rel=1e-4)


def test_yolo26_has_no_distributions(toy: YOLOToy) -> None:
    teacher = write_teacher(definition(toy, "yolo26", 0.25, "teacher"))
    student = YOLO(definition(toy, "yolo26", 0.125, "student"))
    model = attached(toy, student, terms=LD, teacher=str(teacher))
    with pytest.raises(ValueError, match=r"terms\.ld\.student: .*YOLOv5, YOLOv8 and YOLO11"):
        train(toy, model)


@pytest.mark.parametrize("name", ["rpn.objectness", "roi.classes"])
def test_a_yolo_has_one_stage(toy: YOLOToy, name: str) -> None:
    model = attached(toy, terms=dict(kd=of_head(name, "mmkd.KDLoss")))
    said = rf"terms\.kd\.student: DetectionModel has no '{name}', .* Faster R-CNN; of a YOLO take"
    with pytest.raises(ValueError, match=said):
        train(toy, model)


@pytest.mark.parametrize(
    ("settings", "missing"), [(dict(of="images"), "class labels"), (dict(of="regions"), "regions")]
)
def test_images_that_do_not_show_what_a_loss_reads(
    toy: YOLOToy, settings: dict, missing: str
) -> None:
    loss = dict(type="mmkd.DKDLoss", **settings)
    terms = dict(dkd=dict(loss=loss, projector=dict(type="mmkd.LinearProjector")))
    said = rf"DistillCallback terms\.dkd: a loss asks for {missing}"
    with pytest.raises(ValueError, match=said):
        train(toy, attached(toy, terms=terms), on=dict(on_pretrain_routine_end=pytest.fail))


def test_a_head_without_convolutions_that_serve_every_level(toy: YOLOToy) -> None:
    path = "bbox_head.cls_convs.2*"
    loss = dict(type="mmkd.CrossKDLoss", compare="classes")
    terms = dict(cross=dict(student=path, teacher=path, stride="all", loss=loss))
    said = (
        r"terms\.cross\.student: DetectionModel has no convolution 'bbox_head\.cls_convs\.2\*'"
        ".* those of MMDetection's GFL, RetinaNet, FCOS and ATSS; of a YOLO take 'head.classes'"
    )
    with pytest.raises(ValueError, match=said):
        train(toy, attached(toy, terms=terms))


def test_other_classes(toy: YOLOToy) -> None:
    """The toy's teacher knows three classes, its student ten."""
    terms = dict(kd=of_head("head.classes", "mmkd.BinaryKDLoss"))
    with pytest.raises(ValueError, match=r"terms\.kd_s8: .*compares channels one to one, got 10"):
        train(toy, attached(toy, terms=terms))


def test_the_score_of_a_level_is_that_of_its_stride(toy: YOLOToy) -> None:
    """However the module is named that is compared: of stride 8 and of 16 in the neck."""
    loss = dict(type="mmkd.ScoreWeightedL2Loss")
    terms = dict(
        all=dict(student="neck", teacher="neck", stride="all", loss=loss),
        fine=dict(student="model.7", teacher="model.7", loss=loss),
        coarse=dict(student="model.4", teacher="model.4", loss=loss),
    )
    seen: dict[str, Tensor] = {}
    logits: list[Tensor] = [torch.zeros(0)] * 2

    def start(trainer: Any) -> None:
        distillation = trainer.distillation
        for level, module in enumerate(distillation.teachers["teacher"].model.model[-1].cv3):
            module.register_forward_hook(
                lambda m, a, output, i=level: logits.__setitem__(i, output), prepend=True
            )
        for name, distiller in distillation.distillers.items():
            distiller.loss.register_forward_pre_hook(
                lambda m, a, kwargs, n=name: seen.update({n: kwargs["targets"].scores}),
                with_kwargs=True,
            )

    model = attached(toy, terms=terms)
    train(toy, model, on=dict(on_train_start=start), epochs=1, val=False)
    fine, coarse = (each.sigmoid().amax(1, keepdim=True) for each in logits)
    expected = dict(all_s8=fine, all_s16=coarse, fine=fine, coarse=coarse)
    assert seen.keys() == expected.keys()
    assert all(torch.equal(seen[name], value) for name, value in expected.items())
