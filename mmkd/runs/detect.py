"""Detections of a trained detector's checkpoint, in COCO's result format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mmkd.errors import InputError, first_few
from mmkd.evaluation.coco_files import Annotations
from mmkd.extras import extra

__all__ = ["Detected", "detect_with"]


@dataclass(frozen=True)
class Detected:
    """What a detector has found.

    Args:
        detections: File in COCO's result format.
        parameters: Of the detector.
    """

    detections: Path
    parameters: int


def detect_with(
    checkpoint: Path,
    annotations: Annotations,
    images: Path,
    out: Path,
    *,
    config: Path | None = None,
) -> Detected:
    """Runs a checkpoint on the images of an annotation file; a distilled one needs no teacher.

    An MMDetection checkpoint is tested by the Runner's own loop, with the config's pipeline and
    without its custom hooks. Nothing that is pickled in it is executed, and of the config that it
    holds only registered classes are built; a config that is given may import what it likes. What
    libraries print goes to a log beside ``out``. An Ultralytics checkpoint is run at the image size
    that it was trained with; nothing pickled in it is executed either.

    Args:
        checkpoint: ``.pth`` of MMDetection or ``.pt`` of Ultralytics.
        annotations: Of the images; their category names are the detector's classes.
        images: Folder of the images.
        out: File to write. It must not exist.
        config: Of the ``.pth``; None: the one that MMEngine stored in it.

    Raises:
        InputError: ``out`` exists; an image is missing; a file that is none of these, is damaged
            or does not fit its config; other classes than the annotations'.
        FileNotFoundError: No such checkpoint or config.
    """
    for file in (checkpoint, *([config] if config else [])):
        if not file.is_file():
            raise FileNotFoundError(f"no such file: {file}")
    if out.exists():
        raise InputError(f"{out} exists, and is not overwritten: give another file, or remove it")
    _check_images(annotations, images)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Beside the result, so that this can be moved there in one step.
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        found = Path(folder) / "found.bbox.json"
        if checkpoint.suffix == ".pt":
            parameters = _run_ultralytics(checkpoint, annotations, images, found)
        else:
            from mmkd.runs.mmengine.detection import detect_with_config

            log = out.with_name(f"{out.name}.log")
            parameters = detect_with_config(
                checkpoint, annotations, images, found, config=config, log=log
            )
        found.replace(out)
    return Detected(out, parameters)


def _check_images(annotations: Annotations, images: Path) -> None:
    if not annotations.file_names:
        raise InputError(f"{annotations.file} holds no images to detect on")
    missing = [name for name in annotations.file_names if not (images / name).is_file()]
    if missing:
        raise InputError(
            f"{len(missing)} of the {len(annotations.file_names)} images of {annotations.file} are "
            f"not in {images}: {first_few(missing)}. Give the folder from which their file names "
            "count"
        )


def _run_ultralytics(checkpoint: Path, annotations: Annotations, images: Path, out: Path) -> int:
    with extra("yolo", "a checkpoint of Ultralytics'"):
        from mmkd.runs.ultralytics.detection import detect_with_file
    return detect_with_file(checkpoint, annotations.file, images, out)
