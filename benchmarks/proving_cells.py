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
from mmkd.runs.recipe import Recipe
from mmkd.runs.ultralytics.recipe import YOLORecipe

__all__ = ["CELLS", "DISTILL_MODEL", "Cell", "Scale", "Terms"]

# Ultralytics' own distillation, in the place of terms.
DISTILL_MODEL = "distill_model"
Terms = Mapping[str, Mapping[str, Any]] | Literal["distill_model"] | None
# None of a distilled run: mmkd's defaults. Of Ultralytics' detectors, width of a definition.
_WIDTHS = {"teacher": 0.25, "student": 0.125}


@dataclass(frozen=True)
class Scale:
    """How the study grows with the machine.

    Args:
        longer: Factor of every schedule's epochs.
        larger: Factor of the images' side.
        device: Of Ultralytics' trainings; MMEngine's take what there is.
    """

    longer: float = 1.0
    larger: float = 1.0
    device: str = "cpu"

    def epochs(self, count: int) -> int:
        """Of a schedule."""
        return max(1, round(count * self.longer))


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

    def data_set(self, source: Path, runs: Path) -> DataSet:
        """Its data, made where it is not there yet."""
        return _SETS[self.data](source, runs / "data" / self.data)

    def work_dir(self, runs: Path, arm: str, seed: int) -> Path:
        """Of a run."""
        return runs / self.name / (arm if arm == TEACHER else f"{arm}_seed{seed}")

    @property
    @abstractmethod
    def is_yolo(self) -> bool:
        """Whether Ultralytics trains it."""

    @abstractmethod
    def recipe(
        self,
        source: Path,
        runs: Path,
        arm: str,
        seed: int,
        terms: Terms = None,
        scale: Scale = Scale(),
        longer: float = 1.0,
    ) -> Recipe:
        """Of a run.

        Args:
            source: Folder of the data sets.
            runs: Folder of all runs.
            arm: ``'plain'``, ``'teacher'``, or a distilled run's name.
            seed: Of the run.
            terms: Of a distilled run; None: the defaults.
            scale: Of the study.
            longer: A further factor of the epochs.
        """


@dataclass(frozen=True)
class MMCell(Cell):
    """Of MMDetection's detectors; student and teacher are configs of ``configs/detection``."""

    is_yolo = False

    def recipe(
        self,
        source: Path,
        runs: Path,
        arm: str,
        seed: int,
        terms: Terms = None,
        scale: Scale = Scale(),
        longer: float = 1.0,
    ) -> MMRecipe:
        is_teacher = arm == TEACHER
        file = config_file(f"detection/{self.teacher if is_teacher else self.student}.py")
        config = Config.fromfile(file)
        config.work_dir = str(self.work_dir(runs, arm, seed))
        config.randomness = dict(seed=seed)
        self._set_data(config, source, runs, scale)
        _set_epochs(
            config,
            scale.epochs(round((self.teacher_epochs if is_teacher else self.epochs) * longer)),
        )
        if self.start is not None:
            donor, role = CELLS[self.start], TEACHER if is_teacher else BASELINE
            config.load_from = donor.recipe(source, runs, role, 0, scale=scale).checkpoint  # type: ignore[attr-defined]
        if arm not in (BASELINE, TEACHER) and longer == 1.0:
            teacher = self.recipe(source, runs, TEACHER, 0, scale=scale)
            hook: dict[str, Any] = dict(
                type="mmkd.DistillHook",
                teacher=dict(
                    config=config_file(f"detection/{self.teacher}.py"),
                    checkpoint=teacher.checkpoint,
                ),
            )
            config.custom_hooks = [hook if terms is None else {**hook, "terms": _plain(terms)}]
            config.custom_imports = dict(imports=["mmkd", *_imports(terms)])
        return MMRecipe(config)

    def _set_data(self, config: Config, source: Path, runs: Path, scale: Scale) -> None:
        data = self.data_set(source, runs)
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
                    step["scale"] = tuple(round(side * scale.larger) for side in step["scale"])
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

    def recipe(
        self,
        source: Path,
        runs: Path,
        arm: str,
        seed: int,
        terms: Terms = None,
        scale: Scale = Scale(),
        longer: float = 1.0,
    ) -> YOLORecipe:
        data = self.data_set(source, runs)
        is_teacher = arm == TEACHER
        settings: dict[str, Any] = dict(
            model=str(self._definition(runs, self.teacher if is_teacher else self.student)),
            data=str(data.yolo.resolve()),
            imgsz=round(self.image_size * scale.larger / 32) * 32,
            epochs=scale.epochs(
                round((self.teacher_epochs if is_teacher else self.epochs) * longer)
            ),
            batch=16,
            nbs=16,
            optimizer="AdamW",
            lr0=0.002,
            cos_lr=True,
            warmup_epochs=1,
            close_mosaic=5,
            pretrained=self._start(source, runs, is_teacher, scale),
            device=scale.device,
            workers=0,
            cache="ram",
            plots=False,
            val=False,
            seed=seed,
            teacher=None,
        )
        if arm not in (BASELINE, TEACHER) and longer == 1.0:
            teacher = self.recipe(source, runs, TEACHER, 0, scale=scale).checkpoint
            if terms == DISTILL_MODEL:
                settings["distill_model"] = teacher
            else:
                settings |= dict(teacher=teacher, terms=None if terms is None else _plain(terms))
            if imports := _imports(terms):
                settings["custom_imports"] = dict(imports=imports)
        return YOLORecipe(settings, self.work_dir(runs, arm, seed), *data.training, *data.held_out)

    def _start(self, source: Path, runs: Path, is_teacher: bool, scale: Scale) -> str | bool:
        if self.start is None:
            return False
        donor, role = CELLS[self.start], TEACHER if is_teacher else BASELINE
        return donor.recipe(source, runs, role, 0, scale=scale).checkpoint  # type: ignore[attr-defined]

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
    if terms is None or terms == DISTILL_MODEL:
        return []
    weights = [term.get("weight") for term in terms.values()]  # type: ignore[union-attr]
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
            epochs=30,
            teacher_epochs=40,
            image_size=192,
            start="neu_det_yolov5",
        ),
        MMCell(
            "bccd_faster_rcnn_pretrained",
            "bccd",
            "blood cells, Faster R-CNN, one level, from weights of the digits",
            "bccd/faster-rcnn_r18-w8_bccd",
            "bccd/faster-rcnn_r18-w16_bccd",
            epochs=15,
            teacher_epochs=20,
            start="digits_faster_rcnn",
        ),
    )
}
