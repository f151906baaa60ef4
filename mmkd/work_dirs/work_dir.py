"""What a training leaves in its work dir, of MMEngine's Runner and of Ultralytics alike."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mmkd.doctor import Examination
from mmkd.doctor.file import read_examination
from mmkd.dynamics_file import DYNAMICS_FILE, read_dynamics
from mmkd.errors import InputError
from mmkd.input_files import read_text
from mmkd.term_warnings import read_warnings
from mmkd.work_dirs.curves import Curve, number
from mmkd.work_dirs.mmengine_logs import Session, read_sessions
from mmkd.work_dirs.run_files import DETECTIONS, RESULT
from mmkd.work_dirs.ultralytics_logs import (
    read_arguments,
    read_console,
    read_distillation,
    read_results,
)

__all__ = ["SEED", "WorkDir", "read_work_dir"]

# At the end of a folder's name.
SEED = re.compile(r"_seed(\d+)$")
_SPLITS = ("val", "test")
_LARGEST_INTEGER = 2**63


@dataclass(frozen=True, eq=False)
class WorkDir:
    """One training, as far as its files tell of it.

    Args:
        path: The folder.
        framework: Whose trainer made it; None where it was scored and not trained.
        name: Of the run in tables: where a recipe of mmkd's made it, the recipe's; otherwise the
            folder's, less ``_seed<k>``.
        seed: Of the run: from its settings, else as a recipe or the folder's ``_seed<k>`` tells.
        settings: The config by dotted keys, with plain values.
        environment: Versions and device.
        teacher: What identifies it (config, checkpoint, its SHA-256); empty where there is none.
        curves: What was logged by step. ``task_loss`` is the sum of the training's losses without
            distillation.
        detections: Detection file on the validation images, in COCO's result format.
        annotations: COCO annotation file of these images; None also where the config names two
            and does not tell which.
        images: Their folder, likewise.
        parameters: Of the network as it is deployed.
        step_seconds: Time of a training iteration.
        checkpoint: The last weights.
        notes: What the reader should know, such as log lines that were left out.
        warnings: Which terms cannot help, as the training said itself.
        examination: What ``mmkd doctor`` found before the training, where it was kept.
    """

    path: Path
    framework: Literal["mmengine", "ultralytics"] | None
    name: str
    seed: int | None
    settings: dict[str, Any]
    environment: dict[str, str]
    teacher: dict[str, str]
    curves: list[Curve]
    detections: Path | None
    annotations: Path | None
    images: Path | None
    parameters: int | None
    step_seconds: float | None
    checkpoint: Path | None
    notes: list[str]
    warnings: list[str] = field(default_factory=list)
    examination: Examination | None = None

    def curve(self, name: str) -> Curve | None:
        """The curve of a name, if it was logged."""
        return next((curve for curve in self.curves if curve.name == name), None)


def read_work_dir(path: str | Path) -> WorkDir:
    """Reads a work dir without executing anything in it: no config, no pickle.

    Args:
        path: A folder with ``<timestamp>/vis_data`` (MMEngine; of resumed trainings, the curves are
            joined), with ``args.yaml`` and ``results.csv`` (Ultralytics), or with the result alone
            of a checkpoint that mmkd scored and did not train.

    Raises:
        InputError: No folder, one without such logs, or one that cannot be read.
    """
    try:
        folder = Path(path).expanduser()
    except RuntimeError as error:  # There is no such user.
        raise InputError(f"{path}: expected the work dir of a training: {error}") from error
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise InputError(f"{path}: expected the work dir of a training, found {found}")
    try:
        if any((folder / name).is_file() for name in ("results.csv", "args.yaml")):
            return _read_ultralytics(folder)
        sessions = read_sessions(folder)
        if sessions:
            return _read_mmengine(folder, sessions)
        if (folder / RESULT).is_file():
            return _read_scored(folder)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    raise InputError(
        f"{path} holds no logs of a training: looked for MMEngine's "
        "<timestamp>/vis_data/scalars.json and for Ultralytics' results.csv. Give the folder that "
        "the trainer names as work_dir or save_dir"
    )


def _read_mmengine(folder: Path, sessions: list[Session]) -> WorkDir:
    result = _Result(folder)
    last = sessions[-1]
    curves = sessions[0].curves()
    for session in sessions[1:]:
        curves.go_on_with(session.curves())
    notes = [note for session in sessions for note in session.notes]
    detections = _detections(folder, notes)
    annotations, images = _data(folder, last.settings, detections, notes)
    warnings, examination = _warnings(folder, notes), _examined(folder, notes)
    return WorkDir(
        path=folder,
        framework="mmengine",
        name=result.name,
        seed=result.seed(last.settings.get("randomness.seed")),
        settings=last.settings,
        environment=result.environment or last.environment,
        teacher={k: v for session in sessions for k, v in session.teacher.items()},
        curves=[*curves.curves(), *result.score_curves(detections)],
        detections=detections,
        annotations=result.annotations or annotations,
        images=result.images or images,
        parameters=result.parameters,
        step_seconds=last.step_seconds or result.step_seconds,
        checkpoint=_mmengine_checkpoint(folder),
        notes=[*result.notes, *notes, *curves.notes()],
        warnings=warnings,
        examination=examination,
    )


def _read_scored(folder: Path) -> WorkDir:
    result = _Result(folder)
    notes = list(result.notes)
    warnings = _warnings(folder, notes)
    return WorkDir(
        path=folder,
        framework=None,
        name=result.name,
        seed=None,
        settings={},
        environment=result.environment,
        teacher={},
        curves=[],
        detections=_detections(folder, notes),
        annotations=result.annotations,
        images=result.images,
        parameters=result.parameters,
        step_seconds=result.step_seconds,
        checkpoint=result.checkpoint,
        notes=notes,
        warnings=warnings,
    )


def _read_ultralytics(folder: Path) -> WorkDir:
    result = _Result(folder)
    notes = list(result.notes)
    settings: dict[str, Any] = {}
    arguments, results, console, distillation = (
        folder / name for name in ("args.yaml", "results.csv", "output.log", "distill.yaml")
    )
    if arguments.is_file():
        try:
            settings = read_arguments(arguments)
        except ValueError as error:
            notes.append(str(error))
    curves: list[Curve] = []
    if results.is_file():
        builder, left_out = read_results(results)
        if (folder / DYNAMICS_FILE).is_file():
            for row in read_dynamics(folder / DYNAMICS_FILE):
                builder.add(row.name, "dynamics", "epoch", row.step, row.value)
        curves = builder.curves()
        notes += [*left_out, *builder.notes()]
    if not curves:
        notes.append("nothing was logged, the training may have been stopped in its first epoch")
    environment, teacher = read_console(console) if console.is_file() else ({}, {})
    if distillation.is_file():
        try:
            teacher, terms = read_distillation(distillation)
            settings |= terms
        except ValueError as error:
            notes.append(str(error))
    if not teacher and settings.get("distill_model"):
        teacher = {"checkpoint": str(settings["distill_model"])}
    if not teacher and any(curve.group == "distillation" for curve in curves):
        notes.append("the run was distilled, but its files do not tell from which teacher")
    weights = (folder / "weights" / name for name in ("last.pt", "best.pt"))
    return WorkDir(
        path=folder,
        framework="ultralytics",
        name=result.name,
        seed=result.seed(settings.get("seed")),
        settings=settings,
        environment=result.environment or environment,
        teacher=teacher,
        curves=curves,
        detections=_detections(folder, notes),
        annotations=result.annotations,
        images=result.images,
        parameters=result.parameters,
        step_seconds=result.step_seconds,
        checkpoint=next((file for file in weights if file.is_file()), None),
        notes=notes,
        warnings=_warnings(folder, notes),
        examination=_examined(folder, notes),
    )


def _warnings(folder: Path, notes: list[str]) -> list[str]:
    try:
        return read_warnings(folder)
    except InputError as error:
        notes.append(str(error))
        return []


def _examined(folder: Path, notes: list[str]) -> Examination | None:
    try:
        return read_examination(folder)
    except InputError as error:
        notes.append(str(error))
        return None


class _Result:
    """What a recipe of mmkd's has noted in ``result.json``; all is None where none made the run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._values: Mapping[str, Any] = {}
        self.notes: list[str] = []
        file = folder / RESULT
        if not file.is_file():
            return
        try:
            self._values = dict(json.loads(read_text(file))["result"])
        except (ValueError, TypeError, KeyError, RecursionError):
            self.notes.append("result.json cannot be read")

    @property
    def name(self) -> str:
        name = self._values.get("name")
        if isinstance(name, str) and name:
            return name
        folder = self._folder.resolve().name
        return SEED.sub("", folder) or folder

    def seed(self, setting: Any) -> int | None:
        """The trainer's own setting comes first."""
        folder = SEED.search(self._folder.resolve().name)
        candidates = (setting, self._values.get("seed"), int(folder[1]) if folder else None)
        return next((s for each in candidates if (s := _integer(each)) is not None), None)

    @property
    def parameters(self) -> int | None:
        return _integer(self._values.get("parameters"))

    @property
    def step_seconds(self) -> float | None:
        seconds, iterations = (self._values.get(k) for k in ("training_seconds", "iterations"))
        count = _integer(iterations)
        return seconds / count if isinstance(seconds, float) and count else None

    def score_curves(self, detections: Path | None) -> list[Curve]:
        """The scores that it ended with, one point each, where no detections tell of them."""
        found = self._values.get("scores")
        if detections is not None or not isinstance(found, dict):
            return []
        end = _integer(self._values.get("iterations")) or 0
        scores = {str(k): value for k, v in found.items() if (value := number(v)) is not None}
        return [
            Curve(name, "score", "iteration", [(end, value)])
            for name, value in scores.items()
            if math.isfinite(value)
        ]

    @property
    def environment(self) -> dict[str, str]:
        found = self._values.get("environment")
        return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}

    @property
    def checkpoint(self) -> Path | None:
        return _existing(self._folder, self._values.get("checkpoint"))

    @property
    def annotations(self) -> Path | None:
        return _existing(self._folder, self._values.get("annotations"))

    @property
    def images(self) -> Path | None:
        return _existing(self._folder, self._values.get("images"))


def _integer(value: Any) -> int | None:
    """A whole number of a size that figures can show; JSON's have no end."""
    is_one = isinstance(value, int) and not isinstance(value, bool)
    return value if is_one and abs(value) < _LARGEST_INTEGER else None


def _existing(folder: Path, *parts: Any) -> Path | None:
    """What a run's files name, if it is there. A path that is not absolute counts from where the
    training was started, which may not be the current folder, but is often one above the run's."""
    if not all(isinstance(part, str) for part in parts):
        return None
    try:
        path = Path(*parts)
        places = (Path(), *folder.resolve().parents)
        return next((each / path for each in places if (each / path).exists()), None)
    except (ValueError, OSError):  # No name of a file: a NUL byte, or too long.
        return None


def _detections(folder: Path, notes: list[str]) -> Path | None:
    ours, ultralytics = folder / DETECTIONS, folder / "predictions.json"
    others = sorted(folder.glob("*.bbox.json"))
    if ours.is_file():
        return ours
    if len(others) > 1:
        names = ", ".join(file.name for file in others)
        notes.append(f"several detection files, none of which is taken: {names}")
        return None
    return next((file for file in (*others, ultralytics) if file.is_file()), None)


def _data(
    folder: Path, settings: Mapping[str, Any], detections: Path | None, notes: list[str]
) -> tuple[Path | None, Path | None]:
    """Annotation file and images' folder of what the detections were made on."""
    splits = _splits(settings, detections)
    files = {file for split in splits for file in _evaluator(settings, split, "ann_file")[:1]}
    if len(files) > 1:
        notes.append(
            "the config does not tell whether the detections are of its validation or of its test "
            f"data, so none of {', '.join(sorted(files))} is taken: name the right annotation file "
            "by --annotations"
        )
        return None, None
    images = (_images(folder, settings, split) for split in splits)
    found = _existing(folder, *files) if files else None
    if files and found is None:
        notes.append(
            f"its annotation file {files.pop()} is neither in the current folder nor in one above "
            "the run's: name it by --annotations"
        )
    return found, next((each for each in images if each), None)


def _splits(settings: Mapping[str, Any], detections: Path | None) -> Sequence[str]:
    """Of which data the detections are; of several, they may be of either."""
    if detections is None:
        return ["val"]
    written = [
        split
        for split in _SPLITS
        for prefix in _evaluator(settings, split, "outfile_prefix")
        if f"{Path(prefix).name}.bbox.json" == detections.name
    ]
    return written or (["val"] if detections.name == DETECTIONS else _SPLITS)


def _evaluator(settings: Mapping[str, Any], split: str, key: str) -> list[str]:
    """A setting of the split's evaluator, or of each where there are several."""
    evaluator = f"{split}_evaluator"
    found = (
        settings.get(f"{each}.{key}") for each in (evaluator, f"{evaluator}.0", f"{evaluator}.1")
    )
    return [value for value in found if isinstance(value, str)]


def _images(folder: Path, settings: Mapping[str, Any], split: str) -> Path | None:
    dataset = f"{split}_dataloader.dataset"
    prefix = settings.get(f"{dataset}.data_prefix.img")
    return _existing(folder, settings.get(f"{dataset}.data_root") or "", prefix)


def _mmengine_checkpoint(folder: Path) -> Path | None:
    pointer = folder / "last_checkpoint"
    if pointer.is_file():
        # By its name alone: the folder may have been moved since.
        name = Path(read_text(pointer).strip()).name
        found = _existing(folder, str(folder), name)
        if found is not None and found.is_file():
            return found
    files = [*folder.glob("epoch_*.pth"), *folder.glob("iter_*.pth")]
    numbered = {int(n): f for f in files if (n := f.stem.rpartition("_")[2]).isdecimal()}
    return numbered[max(numbered)] if numbered else None
