"""What ``mmkd eval`` does with the files that it is given."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from mmkd.commands.checkpoint_detections import Requests, detections_of
from mmkd.commands.named_files import CHECKPOINTS, NamedFile
from mmkd.errors import InputError
from mmkd.evaluation.coco import Backend, CocoSettings
from mmkd.evaluation.coco_files import (
    Annotations,
    CategoryIds,
    Detections,
    read_annotations,
    read_detections,
)
from mmkd.evaluation.coco_ids import DOUBT
from mmkd.evaluation.comparison import Comparison, Run, compare_runs, workers_for
from mmkd.extras import extra
from mmkd.input_files import real_path
from mmkd.output_files import check_output, write_text
from mmkd.report.exports import as_csv, as_json
from mmkd.report.sentences import conclusions
from mmkd.report.tables import comparison_tables
from mmkd.report.terminal import markdown_tables, rich_table
from mmkd.work_dirs import read_work_dir

__all__ = ["EvalOutputs", "evaluate_files"]

# Longer tables by class are for files; in the terminal they hide the rest.
_MANY_CLASSES = 25


@dataclass(frozen=True)
class EvalOutputs:
    """Files to write, and the folder of the figures; each may be left out."""

    json: Path | None = None
    csv: Path | None = None
    markdown: Path | None = None
    figures: Path | None = None


def evaluate_files(
    annotations: Path,
    files: Sequence[NamedFile],
    *,
    requests: Requests,
    outputs: EvalOutputs,
    settings: CocoSettings,
    category_ids: CategoryIds = "auto",
    baseline: str | None = None,
    teacher: str | None = None,
    resamples: int = 1000,
    seed: int = 0,
    backend: Backend = "pycocotools",
    workers: int | None = None,
    classes: bool | None = None,
    force: bool = False,
) -> Comparison:
    """Evaluates, prints tables, and writes what is asked for.

    Args:
        annotations: COCO annotation file.
        files: Detections or checkpoints.
        requests: For checkpoints.
        outputs: What to write.
        settings: Areas and numbers of detections.
        category_ids: See :func:`mmkd.evaluation.coco_files.read_detections`.
        baseline: See :func:`mmkd.evaluation.comparison.compare_runs`, as the next five.
        teacher: Likewise.
        resamples: Likewise.
        seed: Likewise.
        backend: Likewise.
        workers: Processes; by default as many as there are cores, or one for small files.
        classes: Print the table by class; by default where there are no more than 25.
        force: Replace files that exist.

    Raises:
        InputError: A file or an option that cannot be used.
    """
    _check_outputs(outputs, [annotations, *(each.file for each in files)], force)
    unknown = set(requests.configs or {}) - {each.name for each in files}
    if unknown:
        raise InputError(
            f"--config: expected one of the runs {', '.join(each.name for each in files)}; got "
            f"{', '.join(sorted(unknown))}"
        )
    truth = read_annotations(annotations)
    runs = [_run_of(each, truth, requests, category_ids) for each in files]
    comparison = compare_runs(
        truth,
        runs,
        settings=settings,
        baseline=baseline,
        teacher=teacher,
        resamples=resamples,
        seed=seed,
        backend=backend,
        workers=workers or workers_for(sum(len(run.detections) for run in runs)),
        progress=True,
    )
    _print(comparison, len(truth.category_ids) <= _MANY_CLASSES if classes is None else classes)
    _write(comparison, outputs)
    return comparison


def _check_outputs(outputs: EvalOutputs, inputs: Sequence[Path], force: bool) -> None:
    taken = {real_path(file): "one of the files to be read" for file in inputs}
    files = [(option, getattr(outputs, option)) for option in ("json", "csv", "markdown")]
    if outputs.figures is not None:
        with extra("report", "--figures"):
            from mmkd.report.figures import PICTURES

        files += [("figures", outputs.figures / name) for name in PICTURES]
    for option, file in files:
        if file is None:
            continue
        place = real_path(file)
        if place in taken:
            raise InputError(f"--{option} {file} is {taken[place]}: name another")
        taken[place] = f"what --{option} writes"
        check_output(file, f"--{option} {file}")
        if file.exists() and not force:
            raise InputError(f"--{option} {file} exists: name another, or replace it by --force")


def _run_of(
    named: NamedFile, annotations: Annotations, requests: Requests, category_ids: CategoryIds
) -> Run:
    file, parameters = named.file, None
    if file.suffix in CHECKPOINTS:
        made = detections_of(named, annotations, requests)
        file, parameters = made.detections, made.parameters
    detections = read_detections(file, annotations, category_ids)
    try:
        source = named.file.parent
        work_dir = read_work_dir(source.parent if source.name == "weights" else source)
    except InputError:
        return Run(named.name, detections, parameters)
    known = parameters or work_dir.parameters
    return Run(named.name, detections, known, work_dir.step_seconds, work_dir.seed)


def _print(comparison: Comparison, classes: bool) -> None:
    console = Console(width=None if sys.stdout.isatty() else 160)
    said: dict[str, list[str]] = {}
    for group in comparison.groups:
        for each in group.evaluations:
            said.setdefault(_about(each.detections, comparison.annotations), []).append(group.name)
    for text, names in said.items():
        which = ", ".join(dict.fromkeys(names))
        style = "yellow" if DOUBT in text else None
        console.print(f"{which}: {text}", style=style, highlight=False, markup=False)
    for table in comparison_tables(comparison, classes=classes):
        console.print(rich_table(table))
    for sentence in conclusions(comparison):
        console.print(sentence, highlight=False, markup=False)


def _about(detections: Detections, annotations: Annotations) -> str:
    """How the file was read, and what may tell that it belongs to other images."""
    images = len(annotations.image_ids)
    empty = images - len(np.unique(detections.image))
    text = detections.convention
    if DOUBT in text:
        text += "; if the figures look wrong, say which by --category-ids"
    return f"{text}; {empty} of {images} images without detections" if empty else text


def _write(comparison: Comparison, outputs: EvalOutputs) -> None:
    def as_text() -> str:
        return json.dumps(as_json(comparison), indent=2) + "\n"

    writers: list[tuple[Path | None, Callable[[], str]]] = [
        (outputs.json, as_text),
        (outputs.csv, lambda: as_csv(comparison)),
        (outputs.markdown, lambda: markdown_tables(comparison)),
    ]
    for file, text in writers:
        if file is not None:
            write_text(file, text())
    if outputs.figures is not None:
        from mmkd.report.figures import draw_pictures

        draw_pictures(comparison, outputs.figures)
