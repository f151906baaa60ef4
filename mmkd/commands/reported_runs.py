"""What ``mmkd report`` is given: work dirs, and checkpoints that are detected with first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mmkd.commands.checkpoint_detections import Requests, detections_of
from mmkd.commands.named_files import CHECKPOINTS, NamedFile, parse_runs, split_name
from mmkd.errors import InputError
from mmkd.evaluation.coco_files import Annotations, read_annotations
from mmkd.input_files import real_path
from mmkd.output_files import write_text
from mmkd.runs.detect import Detected
from mmkd.work_dirs import read_work_dir
from mmkd.work_dirs.run_files import RESULT
from mmkd.work_dirs.run_result import RunResult

__all__ = ["ReportedRuns", "find_runs"]


@dataclass
class ReportedRuns:
    """What the page is made from.

    Args:
        work_dirs: Of the runs; that of a checkpoint is its training's, where that left logs.
        names: By work dir, where they were given.
        detections: By work dir, of checkpoints.
    """

    work_dirs: list[Path] = field(default_factory=list)
    names: dict[Path, str] = field(default_factory=dict)
    detections: dict[Path, Path] = field(default_factory=dict)


def find_runs(
    arguments: Sequence[str], annotations: Path | None, requests: Requests
) -> ReportedRuns:
    """Reads ``[NAME=]WORK_DIR`` and ``[NAME=]CHECKPOINT``, and detects with the latter.

    Args:
        arguments: One or more.
        annotations: COCO annotation file, which checkpoints need.
        requests: How to detect with them.

    Raises:
        InputError: Nothing can be detected with a checkpoint.
    """
    runs = ReportedRuns()
    truth: Annotations | None = None
    for argument in arguments:
        name, path = split_name(argument)
        if path.suffix in CHECKPOINTS and not path.is_dir():
            if annotations is None:
                raise InputError(f"{path} is a checkpoint: give the objects by --annotations")
            truth = truth or read_annotations(annotations)
            [named] = parse_runs([argument])
            made = detections_of(named, truth, requests)
            path = _work_dir_of(named, made, annotations, requests)
            runs.detections[path] = made.detections
        runs.work_dirs.append(path)
        if name is not None:
            runs.names[path] = name
    return runs


def _work_dir_of(named: NamedFile, made: Detected, annotations: Path, requests: Requests) -> Path:
    """The training's, or one that tells what is known of the checkpoint alone."""
    folder = named.file.parent
    folder = folder.parent if folder.name == "weights" else folder
    try:
        read_work_dir(folder)
    except InputError:
        folder = made.detections.with_name(made.detections.name.removesuffix(".bbox.json"))
        result = RunResult(
            name=named.name,
            seed=0,
            scores={},
            parameters=made.parameters,
            training_seconds=0.0,
            checkpoint=str(real_path(named.file)),
            work_dir=str(folder),
            annotations=str(real_path(annotations)),
            images=str(requests.images),
        )
        write_text(folder / RESULT, json.dumps(dict(result=asdict(result))))
    return folder
