"""Detections of checkpoints that a command is given, made once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmkd.commands.named_files import NamedFile
from mmkd.custom_imports import imported_modules
from mmkd.errors import InputError
from mmkd.evaluation.coco_files import Annotations
from mmkd.input_files import real_path
from mmkd.output_files import write_text
from mmkd.runs.detect import Detected, detect_with
from mmkd.runs.fingerprint import Fingerprint, ImageFiles, named_modules, scored_config

__all__ = ["Requests", "detections_of"]


@dataclass(frozen=True)
class Requests:
    """How to get the detections of checkpoints.

    Args:
        images: Folder of the annotations' images.
        configs: MMDetection configs by run, where not that of the checkpoint.
        out: Folder for the detection files.
        force: Detect also where it was done before.
    """

    images: Path | None = None
    configs: Mapping[str, Path] | None = None
    out: Path = Path("work_dirs/eval")
    force: bool = False


def detections_of(named: NamedFile, annotations: Annotations, requests: Requests) -> Detected:
    """Detects with a checkpoint, once: the file's name tells from what it was made.

    Args:
        named: The checkpoint.
        annotations: Of the images.
        requests: How.

    Raises:
        InputError: There is no such checkpoint, or nothing can be detected with it.
    """
    if requests.images is None:
        raise InputError(f"{named.file} is a checkpoint: give the images' folder by --images")
    if not named.file.is_file():
        raise InputError(f"{named.file}: expected a checkpoint, found no such file")
    config = (requests.configs or {}).get(named.name)
    made_from = _made_from(named.file, config, annotations, requests.images)
    name = re.sub(r"[^\w.-]", "_", named.name)
    out = requests.out / f"{name}-{made_from.digest[:12]}.bbox.json"
    about = out.with_suffix(".about.json")
    if requests.force or not (out.is_file() and about.is_file()):
        out.unlink(missing_ok=True)
        made = detect_with(named.file, annotations, requests.images, out, config=config)
        write_text(about, json.dumps(dict(parameters=made.parameters)))
    return Detected(out, json.loads(about.read_text())["parameters"])


def _made_from(
    checkpoint: Path, config: Path | None, annotations: Annotations, images: Path
) -> Fingerprint:
    if config is not None and not config.is_file():
        raise InputError(f"--config {config}: expected a config, found no such file")
    settings = dict(
        annotations=annotations.digest, config=config and scored_config(real_path(config))
    )
    files: dict[str, Path | ImageFiles] = {
        "checkpoint": checkpoint,
        "images": ImageFiles(images, annotations.file_names),
        **named_modules(imported_modules()),
    }
    return Fingerprint.of(settings, files)
