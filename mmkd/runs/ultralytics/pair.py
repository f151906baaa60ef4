"""Settings of a distilled YOLO training, and the same settings without a teacher."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset

from mmkd.engine.teachers import TeacherSettings
from mmkd.engine.ultralytics.callback import DistillCallback
from mmkd.engine.ultralytics.train import OWN_KEYS, prepare, read_settings
from mmkd.errors import InputError, MissingFileError
from mmkd.runs.ultralytics.recipe import YOLORecipe, log_to_stdout
from mmkd.work_dirs.run_files import STARTED

__all__ = ["YOLOPair", "coco_annotations"]


@dataclass(frozen=True)
class YOLOPair:
    """See :class:`mmkd.runs.paired.Pair`.

    Args:
        settings: With a teacher.
        training_annotations: COCO annotations of the training images.
        training_images: Folder of these.
        annotations: COCO annotations of the validation images.
        images: Folder of these.
    """

    settings: Mapping[str, Any]
    training_annotations: Path
    training_images: Path
    annotations: Path
    images: Path

    @classmethod
    def read(cls, file: Path, options: Sequence[str], out: Path) -> YOLOPair:
        """Reads a config and ``key=value`` settings that replace its own.

        Args:
            file: See :func:`mmkd.engine.ultralytics.train.read_settings`.
            options: Likewise.
            out: Folder for the annotations, which are made from the data set's label files.

        Raises:
            InputError: It cannot be compared, and why.
            FileNotFoundError: No such config, or no such teacher.
        """
        settings = read_settings(file, options)
        if not settings.get("teacher"):
            raise InputError(f"{file}: expected a teacher, found none: give teacher=FILE")
        if not settings.get("data"):
            raise InputError(f"{file}: expected a data set, found none: give data=FILE")
        _check_arguments(file, settings)
        # Beside runs they are ours; what was trained on other data is refused elsewhere.
        is_ours = any(out.parent.glob(f"*/{STARTED}"))
        training, validation = (
            coco_annotations(settings["data"], split, out / f"{split}.json", replace=is_ours)
            for split in ("train", "val")
        )
        return cls(settings, *training, *validation)

    @property
    def teachers(self) -> dict[str, TeacherSettings]:
        """By name."""
        return DistillCallback(self.settings["teacher"], self.settings.get("terms")).teachers

    @property
    def scored_on(self) -> tuple[Path, Path]:
        """Annotation file and images."""
        return self.annotations, self.images

    def recipe(self, is_distilled: bool, seed: int, work_dir: Path) -> YOLORecipe:
        """Of one run; plain has neither teacher nor terms, and all else in common."""
        settings = {**self.settings, "seed": seed}
        if not is_distilled:
            settings |= dict(teacher=None, **dict.fromkeys(OWN_KEYS))
        return YOLORecipe(
            settings,
            work_dir,
            self.training_annotations,
            self.training_images,
            self.annotations,
            self.images,
        )

    def trial(self, work_dir: Path) -> YOLORecipe:
        """The distilled run as it begins."""
        return self.recipe(True, 0, work_dir)


def _check_arguments(file: Path, settings: Mapping[str, Any]) -> None:
    for key in ("single_cls", "classes"):
        # Class 0 is a choice too.
        if settings.get(key) is not None and settings[key] is not False:
            raise InputError(
                f"{file}: expected training on all classes of the data set, on which both runs "
                f"are scored, found {key}={settings[key]}: leave it out, or make a data set of "
                "these classes"
            )
    try:
        # It prints what it loads.
        with contextlib.redirect_stdout(io.StringIO()), log_to_stdout():
            prepare(settings)
    except MissingFileError:
        raise
    except (ValueError, TypeError) as error:
        raise InputError(f"{file}: {error}") from error


def coco_annotations(
    data: str, split: str, out: Path, *, replace: bool = False
) -> tuple[Path, Path]:
    """Writes the objects of a data set in Ultralytics' layout as COCO annotations.

    Args:
        data: YAML file, or a name that Ultralytics knows.
        split: ``'train'`` or ``'val'``.
        out: File to write. Where it exists already, it must hold the same, or is replaced.
        replace: Whether it may be.

    Returns:
        The file, and the folder from which its file names count.

    Raises:
        InputError: The data set cannot be read, or ``out`` holds something else.
    """
    try:
        # It prints what it scans.
        with contextlib.redirect_stdout(io.StringIO()), log_to_stdout():
            about = check_det_dataset(data)
            labels = YOLODataset(img_path=about[split], data=about, augment=False).labels
    # Its errors are of many kinds.
    except Exception as error:
        raise InputError(f"{data}: the {split} split cannot be read: {error}") from error
    files = [Path(label["im_file"]).resolve() for label in labels]
    images = Path(os.path.commonpath([file.parent for file in files]))
    annotations: list[dict[str, Any]] = []
    for index, label in enumerate(labels, start=1):
        height, width = label["shape"]
        for category, (x, y, w, h) in zip(
            label["cls"].ravel().tolist(), label["bboxes"].tolist(), strict=True
        ):
            box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=index,
                    category_id=int(category) + 1,
                    bbox=box,
                    area=box[2] * box[3],
                    iscrowd=0,
                )
            )
    content = dict(
        images=[
            dict(
                id=index,
                file_name=file.relative_to(images).as_posix(),
                height=label["shape"][0],
                width=label["shape"][1],
            )
            for index, (file, label) in enumerate(zip(files, labels, strict=True), start=1)
        ],
        categories=[dict(id=index + 1, name=name) for index, name in about["names"].items()],
        annotations=annotations,
    )
    text = json.dumps(content)
    if not replace and out.is_file() and out.read_text() != text:
        raise InputError(f"{out} holds the annotations of other data: choose another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)
    return out, images
