"""The proving ground's cells: a data set, a trainer, a pair of detectors, and how they start.

A cell knows how one of its runs is made; :mod:`proving_ground` knows which runs there are.
"""

from __future__ import annotations

import copy
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmengine.config import Config
from ultralytics.utils import ROOT, YAML

from mmkd.configs import config_file
from mmkd.data.digits import make_digits
from mmkd.data.to_yolo import coco_to_yolo
from mmkd.evaluation.comparison import BASELINE, TEACHER
from mmkd.output_files import write_text
from mmkd.runs.mmengine.recipes import MMRecipe
from mmkd.runs.ultralytics.recipe import YOLORecipe

__all__ = [
    "CELLS",
    "DISTILL_MODEL",
    "PLAIN_ARM",
    "TEACHER_ARM",
    "Arm",
    "Cell",
    "Study",
]

# Ultralytics' own distillation, in the place of terms.
DISTILL_MODEL = "distill_model"
Terms = Mapping[str, Mapping[str, Any]]
# Of Ultralytics' detectors, width of a definition.
_WIDTHS = {"teacher": 0.25, "student": 0.125}


@dataclass(frozen=True)
class Arm:
    """What is trained in a cell.

    Args:
        name: In tables, and of its folder.
        terms: What is distilled, or Ultralytics' own distillation; None: nothing is.
        longer: Factor of the cell's schedule.
    """

    name: str
    terms: Terms | Literal["distill_model"] | None = None
    longer: float = 1.0


PLAIN_ARM, TEACHER_ARM = Arm(BASELINE), Arm(TEACHER)


@dataclass(frozen=True)
class Study:
    """Where the study lies, and how it grows with the machine.

    Args:
        source: Folder of the data sets.
        runs: Folder of all runs.
        longer: Factor of every schedule's epochs.
        larger: Factor of the images' side.
        device: Of Ultralytics' trainings; MMEngine's take what there is.
    """

    source: Path
    runs: Path
    longer: float = 1.0
    larger: float = 1.0
    device: str = "cpu"


@dataclass(frozen=True)
class DataSet:
    """A detection set in both layouts.

    Args:
        training: COCO annotations of the training images, and their folder.
        held_out: Those on which runs are scored.
        yolo: Its YAML file.
    """

    training: tuple[Path, Path]
    held_out: tuple[Path, Path]
    yolo: Path


def _digits(source: Path, out: Path) -> DataSet:
    data = make_digits(out, layout="both")
    sides = [(data / f"annotations/{split}.json", data / split) for split in ("train", "val")]
    return DataSet(*sides, data / "data.yaml")


def _bccd(source: Path, out: Path) -> DataSet:
    """Scored on both of its held-out splits: nothing is chosen on the one of the two alone."""
    images = source / "bccd/images"
    splits = [json.loads((source / f"bccd/{name}.json").read_text()) for name in ("val", "test")]
    held_out = out.with_name("bccd_held_out.json")
    if not held_out.is_file():
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(held_out, json.dumps(_joined(*splits)))
    training = (source / "bccd/train.json", images)
    made = coco_to_yolo(out, dict(train=training, val=(held_out, images)), link=True)
    return DataSet(training, (held_out, images), made.data_yaml)


def _joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two annotation files of the same categories as one, numbered anew."""
    images, annotations = [], []
    for part in (first, second):
        new = {image["id"]: len(images) + i for i, image in enumerate(part["images"], start=1)}
        images += [{**image, "id": new[image["id"]]} for image in part["images"]]
        annotations += [
            {**each, "id": len(annotations) + i, "image_id": new[each["image_id"]]}
            for i, each in enumerate(part["annotations"], start=1)
        ]
    return {**first, "images": images, "annotations": annotations}


def _neu_det(source: Path, out: Path) -> DataSet:
    root = source / "neu_det"
    training, held_out = (
        (root / f"annotations/{split}.json", root / split) for split in ("train", "test")
    )
    made = coco_to_yolo(out, dict(train=training, val=held_out), link=True)
    return DataSet(training, held_out, made.data_yaml)


_SETS = {"digits": _digits, "bccd": _bccd, "neu_det": _neu_det}


@dataclass(frozen=True)
class Cell(ABC):
    """One row of the study.

    Args:
        name: In tables, and of its folder.
        data: Which set.
        title: For people.
        student, teacher: Which detectors.
        epochs: Of the students.
        teacher_epochs: Of the teacher.
        start: Another cell, from whose plain student (seed 0) and teacher these start; None: from
            scratch.
    """

    name: str
    data: str
    title: str
    student: str
    teacher: str
    epochs: int
    teacher_epochs: int
    start: str | None = None

    def data_set(self, study: Study) -> DataSet:
        """Its data, made where it is not there yet."""
        return _SETS[self.data](study.source, study.runs / "data" / self.data)

    def work_dir(self, study: Study, arm: Arm, seed: int) -> Path:
        """Of a run."""
        return (
            study.runs / self.name / (TEACHER if arm == TEACHER_ARM else f"{arm.name}_seed{seed}")
        )

    @property
    @abstractmethod
    def is_yolo(self) -> bool:
        """Whether Ultralytics trains it."""

    @abstractmethod
    def recipe(self, study: Study, arm: Arm, seed: int) -> MMRecipe | YOLORecipe:
        """Of a run."""

    def _epochs(self, study: Study, arm: Arm) -> int:
        own = self.teacher_epochs if arm == TEACHER_ARM else self.epochs
        return max(1, round(own * arm.longer * study.longer))

    def _start(self, study: Study, arm: Arm) -> str | None:
        """The checkpoint that a run starts from."""
        if self.start is None:
            return None
        donor = TEACHER_ARM if arm == TEACHER_ARM else PLAIN_ARM
        return CELLS[self.start].recipe(study, donor, 0).checkpoint


@dataclass(frozen=True)
class MMCell(Cell):
    """Of MMDetection's detectors; student and teacher are configs of ``configs/detection``."""

    is_yolo = False

    def recipe(self, study: Study, arm: Arm, seed: int) -> MMRecipe:
        """See :meth:`Cell.recipe`."""
        model = self.teacher if arm == TEACHER_ARM else self.student
        config = Config.fromfile(config_file(f"detection/{model}.py"))
        config.work_dir = str(self.work_dir(study, arm, seed))
        config.randomness = dict(seed=seed)
        self._set_data(config, study)
        _set_epochs(config, self._epochs(study, arm))
        if start := self._start(study, arm):
            config.load_from = start
        if arm.terms is not None:
            teacher = dict(
                config=config_file(f"detection/{self.teacher}.py"),
                checkpoint=self.recipe(study, TEACHER_ARM, 0).checkpoint,
            )
            hook = dict(type="mmkd.DistillHook", teacher=teacher, terms=_plain(arm.terms))
            config.custom_hooks = [hook]
            config.custom_imports = dict(imports=["mmkd", *_imports(arm.terms)])
        return MMRecipe(config)

    def _set_data(self, config: Config, study: Study) -> None:
        data = self.data_set(study)
        for split, (file, images) in (
            ("train", data.training),
            ("val", data.held_out),
            ("test", data.held_out),
        ):
            dataset = config[f"{split}_dataloader"].dataset
            dataset.data_root = ""
            dataset.ann_file, dataset.data_prefix = str(file), dict(img=f"{images}/")
            for step in dataset.pipeline:
                if step["type"] == "Resize":
                    step["scale"] = tuple(round(side * study.larger) for side in step["scale"])
        for evaluator in (config.val_evaluator, config.test_evaluator):
            evaluator.ann_file = str(data.held_out[0])


def _set_epochs(config: Config, epochs: int) -> None:
    config.train_cfg.max_epochs = config.train_cfg.val_interval = epochs
    config.default_hooks.checkpoint.interval = epochs
    cosine = config.param_scheduler[-1]
    cosine.T_max = cosine.end = epochs


@dataclass(frozen=True)
class YOLOCell(Cell):
    """Of Ultralytics' detectors.

    Student and teacher are definitions: files of ``configs/yolo/_base_``, or Ultralytics' own by
    their path in its package and a role, which says the width.

    Args:
        image_size: Side of the images in pixels.
    """

    image_size: int = 160

    is_yolo = True

    def recipe(self, study: Study, arm: Arm, seed: int) -> YOLORecipe:
        """See :meth:`Cell.recipe`."""
        data = self.data_set(study)
        model = self.teacher if arm == TEACHER_ARM else self.student
        settings: dict[str, Any] = dict(
            model=str(self._definition(study.runs, model)),
            data=str(data.yolo.resolve()),
            imgsz=round(self.image_size * study.larger / 32) * 32,
            epochs=self._epochs(study, arm),
            batch=16,
            nbs=16,
            optimizer="AdamW",
            lr0=0.002,
            cos_lr=True,
            warmup_epochs=1,
            close_mosaic=5,
            pretrained=self._start(study, arm) or False,
            device=study.device,
            workers=0,
            cache="ram",
            plots=False,
            val=False,
            seed=seed,
            teacher=None,
        )
        if arm.terms is not None:
            teacher = self.recipe(study, TEACHER_ARM, 0).checkpoint
            if arm.terms == DISTILL_MODEL:
                settings["distill_model"] = teacher
            else:
                settings |= dict(teacher=teacher, terms=_plain(arm.terms))
                if imports := _imports(arm.terms):
                    settings["custom_imports"] = dict(imports=imports)
        work_dir = self.work_dir(study, arm, seed)
        return YOLORecipe(settings, work_dir, *data.training, *data.held_out)

    def _definition(self, runs: Path, name: str) -> Path:
        path, _, role = name.partition(" ")
        if not role:
            return Path(config_file("yolo/_base_/yolov5-small.yaml")).with_name(f"{path}.yaml")
        definition = YAML.load(ROOT / "cfg/models" / f"{path}.yaml")
        depth = next(iter(definition["scales"].values()))[0]
        definition["scales"] = {"n": [depth, _WIDTHS[role], 1024]}
        file = runs / "definitions" / role / f"{Path(path).name}n.yaml"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            YAML.save(file, definition)
        return file


def _imports(terms: Terms) -> list[str]:
    """Of this folder, what the terms name."""
    weights = [term.get("weight") for term in terms.values()]
    is_ours = any(isinstance(weight, dict) and "type" in weight for weight in weights)
    return [str(Path(__file__).with_name("weight_rules.py"))] if is_ours else []


def _plain(terms: Any) -> dict[str, Any]:
    return copy.deepcopy({name: dict(term) for name, term in terms.items()})


CELLS: dict[str, Cell] = {
    cell.name: cell
    for cell in (
        MMCell(
            "digits_faster_rcnn",
            "digits",
            "digits, Faster R-CNN, one level",
            "digits/faster-rcnn_r18-w8_digits",
            "digits/faster-rcnn_r18-w16_digits",
            epochs=12,
            teacher_epochs=16,
        ),
        YOLOCell(
            "digits_yolov5",
            "digits",
            "digits, YOLOv5, two levels",
            "yolov5n-small",
            "yolov5m-small",
            epochs=30,
            teacher_epochs=40,
            image_size=96,
        ),
        MMCell(
            "bccd_faster_rcnn",
            "bccd",
            "blood cells, Faster R-CNN with FPN",
            "bccd/faster-rcnn-fpn_r18-w8_bccd",
            "bccd/faster-rcnn-fpn_r18-w16_bccd",
            epochs=30,
            teacher_epochs=40,
        ),
        YOLOCell(
            "bccd_yolov5",
            "bccd",
            "blood cells, YOLOv5, two levels",
            "yolov5n-small",
            "yolov5m-small",
            epochs=60,
            teacher_epochs=80,
            image_size=192,
        ),
        YOLOCell(
            "neu_det_yolov5",
            "neu_det",
            "steel, YOLOv5",
            "v5/yolov5 student",
            "v5/yolov5 teacher",
            epochs=30,
            teacher_epochs=40,
            image_size=128,
        ),
        YOLOCell(
            "neu_det_yolo11",
            "neu_det",
            "steel, YOLO11",
            "11/yolo11 student",
            "11/yolo11 teacher",
            epochs=30,
            teacher_epochs=40,
            image_size=128,
        ),
        MMCell(
            "neu_det_gfl",
            "neu_det",
            "steel, GFL",
            "neu_det/gfl_r18-w8_neu_det",
            "neu_det/gfl_r18-w24_neu_det",
            epochs=24,
            teacher_epochs=24,
        ),
        YOLOCell(
            "bccd_yolov5_pretrained",
            "bccd",
            "blood cells, YOLOv5, from weights of the steel",
            "v5/yolov5 student",
            "v5/yolov5 teacher",
            epochs=60,
            teacher_epochs=80,
            image_size=192,
            start="neu_det_yolov5",
        ),
        MMCell(
            "bccd_faster_rcnn_pretrained",
            "bccd",
            "blood cells, Faster R-CNN, one level, from weights of the digits",
            "bccd/faster-rcnn_r18-w8_bccd",
            "bccd/faster-rcnn_r18-w16_bccd",
            epochs=40,
            teacher_epochs=60,
            start="digits_faster_rcnn",
        ),
        MMCell(
            "bccd_faster_rcnn_one_level",
            "bccd",
            "blood cells, Faster R-CNN, one level",
            "bccd/faster-rcnn_r18-w8_bccd",
            "bccd/faster-rcnn_r18-w16_bccd",
            epochs=30,
            teacher_epochs=40,
        ),
        MMCell(
            "digits_faster_rcnn_pretrained",
            "digits",
            "digits, Faster R-CNN, one level, from weights of the blood cells",
            "digits/faster-rcnn_r18-w8_digits",
            "digits/faster-rcnn_r18-w16_digits",
            epochs=12,
            teacher_epochs=16,
            start="bccd_faster_rcnn_one_level",
        ),
    )
}
