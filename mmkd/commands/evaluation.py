"""What ``mmkd eval`` does with the files that it is given."""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from mmkd.errors import InputError
from mmkd.evaluation.coco import COCO_AREAS, Backend, CocoSettings
from mmkd.evaluation.coco_files import (
    Annotations,
    CategoryIds,
    Detections,
    read_annotations,
    read_detections,
)
from mmkd.evaluation.coco_ids import DOUBT
from mmkd.evaluation.comparison import Comparison, Run, compare_runs, workers_for
from mmkd.report.exports import as_csv, as_json
from mmkd.report.figures import PICTURES, draw_pictures
from mmkd.report.sentences import conclusions
from mmkd.report.tables import comparison_tables
from mmkd.report.terminal import markdown_tables, rich_table
from mmkd.runs.detect import detect_with
from mmkd.work_dirs import read_work_dir

__all__ = [
    "EvalOutputs",
    "NamedFile",
    "Requests",
    "evaluate_files",
    "parse_areas",
    "parse_limits",
    "parse_pairs",
    "parse_runs",
    "split_name",
]

CHECKPOINTS = (".pth", ".pt")
# What detection files and checkpoints are called besides their run's name.
_SUFFIXES = (".bbox.json", ".json", *CHECKPOINTS)
# What trainers call files alike in each work dir.
_COMMON = re.compile(r"detections|predictions|last|best|epoch_\d+|iter_\d+|best_.*")
# Longer tables by class are for files; in the terminal they hide the rest.
_MANY_CLASSES = 25


@dataclass(frozen=True)
class NamedFile:
    """A detection file or a checkpoint, and its run's name in tables."""

    name: str
    file: Path


@dataclass(frozen=True)
class Requests:
    """How to get the detections of checkpoints.

    Args:
        images: Folder of the annotations' images.
        configs: MMDetection configs by run, where not that of the checkpoint.
        out: Folder for the detection files.
    """

    images: Path | None = None
    configs: Mapping[str, Path] | None = None
    out: Path = Path("work_dirs/eval")


@dataclass(frozen=True)
class EvalOutputs:
    """Files to write, and the folder of the figures; each may be left out."""

    json: Path | None = None
    csv: Path | None = None
    markdown: Path | None = None
    figures: Path | None = None


def parse_runs(arguments: Sequence[str]) -> list[NamedFile]:
    """Reads ``FILE`` and ``NAME=FILE``.

    Without a name, a run is called as its file; files that trainers name alike in each work dir
    are called as that folder, less ``_seed<number>``.

    Raises:
        InputError: A file is given twice, or files that are not known for seeds get one name.
    """
    runs: dict[str, list[NamedFile]] = {}
    unclear: set[str] = set()
    for argument in arguments:
        given, path = split_name(argument)
        called, is_seed = _called(path)
        name = called if given is None else given
        runs.setdefault(name, []).append(NamedFile(name, path))
        if given is None and not is_seed:
            unclear.add(name)
    for name, members in runs.items():
        files = ", ".join(str(each.file) for each in members)
        if len({each.file.resolve() for each in members}) < len(members):
            raise InputError(f"{name}: a file is given twice: {files}")
        if len(members) > 1 and name in unclear:
            raise InputError(
                f"{files} would all be called {name!r}, and taken for seeds of one run: give "
                "NAME=FILE, with one name if they are"
            )
    return [each for members in runs.values() for each in members]


def _called(path: Path) -> tuple[str, bool]:
    """A file's run, and whether its folder tells that it is a seed of it."""
    name = next((path.name.removesuffix(s) for s in _SUFFIXES if path.name.endswith(s)), path.stem)
    if not _COMMON.fullmatch(name):
        return name, False
    # Ultralytics keeps its checkpoints one folder further down.
    folder = path.parent.parent if path.parent.name == "weights" else path.parent
    run = re.sub(r"_seed\d+$", "", folder.resolve().name)
    return run or name, run != folder.resolve().name


def parse_limits(arguments: Sequence[str]) -> tuple[int, ...]:
    """Reads numbers of detections, each by itself or several with commas between.

    Raises:
        InputError: Anything else.
    """
    try:
        return tuple(int(part) for argument in arguments for part in argument.split(","))
    except ValueError as error:
        raise InputError(
            f"--max-detections: expected whole numbers, as 1,10,100, got {' '.join(arguments)!r}"
        ) from error


def parse_pairs(option: str, form: str, arguments: Sequence[str]) -> dict[str, Path]:
    """Reads ``NAME=FILE``.

    Args:
        option: For messages, as ``form``.
        form: What is expected.
        arguments: One or more.

    Raises:
        InputError: Anything else.
    """
    pairs = {}
    for argument in arguments:
        name, separator, file = argument.partition("=")
        if not separator or not name or not file:
            raise InputError(f"--{option}: expected {form}, got {argument!r}")
        pairs[name] = Path(file)
    return pairs


def split_name(argument: str) -> tuple[str | None, Path]:
    """Reads ``PATH`` and ``NAME=PATH``; a path that exists may hold an equals sign."""
    name, separator, path = argument.partition("=")
    if separator and name and not Path(argument).exists():
        return name, Path(path)
    return None, Path(argument)


def parse_areas(arguments: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Reads ``NAME=LOW:HIGH``, in square pixels, behind the range ``all``.

    Raises:
        InputError: Anything else.
    """
    areas = {"all": COCO_AREAS["all"]}
    for argument in arguments:
        found = re.fullmatch(r"([^=]+)=([^:]+):([^:]+)", argument)
        try:
            if found is None or found[1] in areas:
                raise ValueError(argument)
            areas[found[1]] = (float(found[2]), float(found[3]))
            if not math.isfinite(sum(areas[found[1]])):
                raise ValueError(argument)
        except ValueError as error:
            raise InputError(
                "area: expected NAME=LOW:HIGH in square pixels, as tiny=0:256, each name once and "
                f"none of them 'all', got {argument!r}"
            ) from error
    return areas


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
    taken = {file.resolve(): "one of the files to be read" for file in inputs}
    files = [(option, getattr(outputs, option)) for option in ("json", "csv", "markdown")]
    if outputs.figures is not None:
        files += [("figures", outputs.figures / name) for name in PICTURES]
    for option, file in files:
        if file is None:
            continue
        if file.resolve() in taken:
            raise InputError(f"--{option} {file} is {taken[file.resolve()]}: name another")
        taken[file.resolve()] = f"what --{option} writes"
        blocking = next(
            (each for each in file.parents if each.exists() and not each.is_dir()), None
        )
        if file.is_dir() or blocking is not None:
            raise InputError(
                f"--{option} {file}: expected a file in a folder, but {blocking or file} is a "
                f"{'file' if blocking else 'folder'}"
            )
        if file.exists() and not force:
            raise InputError(f"--{option} {file} exists: name another, or replace it by --force")


def _run_of(
    named: NamedFile, annotations: Annotations, requests: Requests, category_ids: CategoryIds
) -> Run:
    file, parameters = named.file, None
    if file.suffix in CHECKPOINTS:
        file, parameters = _detections_of(named, annotations, requests)
    detections = read_detections(file, annotations, category_ids)
    try:
        source = named.file.parent
        work_dir = read_work_dir(source.parent if source.name == "weights" else source)
    except InputError:
        return Run(named.name, detections, parameters)
    return Run(named.name, detections, parameters or work_dir.parameters, work_dir.step_seconds)


def _detections_of(
    named: NamedFile, annotations: Annotations, requests: Requests
) -> tuple[Path, int]:
    """Detects with a checkpoint, once: the file's name tells from what it was made."""
    if requests.images is None:
        raise InputError(f"{named.file} is a checkpoint: give the images' folder by --images")
    if not named.file.is_file():
        raise InputError(f"{named.file}: expected a checkpoint, found no such file")
    config = (requests.configs or {}).get(named.name)
    key = hashlib.sha256(f"{annotations.digest} {requests.images.resolve()}".encode())
    for source in (named.file, config):
        if source is not None and source.is_file():
            key.update(source.read_bytes())
    name = re.sub(r"[^\w.-]", "_", named.name)
    out = requests.out / f"{name}-{key.hexdigest()[:12]}.bbox.json"
    about = out.with_suffix(".about.json")
    if not (out.is_file() and about.is_file()):
        out.unlink(missing_ok=True)
        made = detect_with(named.file, annotations, requests.images, out, config=config)
        # In one step: what is cut short is not taken for whole.
        unfinished = about.with_suffix(".part")
        unfinished.write_text(json.dumps(dict(parameters=made.parameters)))
        unfinished.replace(about)
    return out, json.loads(about.read_text())["parameters"]


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
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text(), encoding="utf-8")
    if outputs.figures is not None:
        draw_pictures(comparison, outputs.figures)
