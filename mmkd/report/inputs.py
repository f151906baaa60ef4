"""What a report is made from: work dirs, their roles, and the detections that are compared."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mmkd.errors import InputError
from mmkd.evaluation.coco_files import (
    Annotations,
    CategoryIds,
    Detections,
    read_annotations,
    read_detections,
)
from mmkd.evaluation.comparison import (
    Comparison,
    Role,
    Run,
    compare_runs,
    find_roles,
    workers_for,
)
from mmkd.input_files import read_bytes, real_path
from mmkd.report.style import in_order
from mmkd.work_dirs import WorkDir, read_work_dir
from mmkd.work_dirs.run_files import RESULT

__all__ = ["ReportInputs", "compare_inputs", "read_inputs", "run_title"]

NO_DETECTIONS = (
    "No detections were found in the work dirs. MMDetection writes them where "
    "val_evaluator.outfile_prefix is set, Ultralytics with save_json=True; or name a file by "
    "--detections."
)
NO_BOXES = "These runs find no boxes; their scores are what they noted at their end."
NO_ANNOTATIONS = (
    "The work dirs name no annotation file that is there, so their detections were not evaluated: "
    "name one by --annotations."
)
NO_READABLE_DETECTIONS = (
    "No detection file in the work dirs can be read with the annotation file; the notes say why."
)


@dataclass(frozen=True, eq=False)
class ReportInputs:
    """What the page is made from.

    Args:
        runs: Grouped by name: the baseline first, the teacher last.
        roles: By name.
        annotations: None where there is nothing to evaluate with.
        images: Folder of the images.
        detections: By work dir.
        notes: What the reader should know about the files.
        unevaluated: Why nothing was evaluated, and how to have it.
        warnings: Which terms could not help, as the trainings said.
    """

    runs: list[WorkDir]
    roles: dict[str, Role]
    annotations: Annotations | None
    images: Path | None
    detections: dict[Path, Detections]
    notes: list[str] = field(default_factory=list)
    unevaluated: str = ""
    warnings: list[str] = field(default_factory=list)

    @property
    def groups(self) -> dict[str, list[WorkDir]]:
        """Runs by name."""
        groups: dict[str, list[WorkDir]] = {}
        for run in self.runs:
            groups.setdefault(run.name, []).append(run)
        return groups


def read_inputs(
    work_dirs: Sequence[Path],
    *,
    annotations: Path | None = None,
    images: Path | None = None,
    detections: Mapping[Path, Path] | None = None,
    names: Mapping[Path, str] | None = None,
    baseline: str | None = None,
    teacher: str | None = None,
    category_ids: CategoryIds = "auto",
) -> ReportInputs:
    """Reads what a report is made from; see :func:`mmkd.report.write_report`."""
    detections = detections or {}
    runs, roles = _with_roles(_read_runs(work_dirs, names or {}), baseline, teacher)
    if images is not None and not images.is_dir():
        raise InputError(f"{images}: expected the folder of the images, found no folder")
    notes = [(note, run) for run in runs for note in (*run.notes, *_other_teacher(run, runs))]
    warnings = _by_text([(text, run) for run in runs for text in run.warnings], len(runs))
    files = _detection_files(runs, detections)
    named = {real_path(work_dir) for work_dir in detections}
    truth_file = annotations or _common_annotations(runs)
    if not files or truth_file is None:
        reason = NO_ANNOTATIONS if files else _without_detections(runs)
        texts = _by_text(notes, len(runs))
        return ReportInputs(runs, roles, None, None, {}, texts, reason, warnings)
    truth = read_annotations(truth_file)
    found, about, errors = _read_detections(runs, files, named, truth, category_ids)
    # Whoever names the annotation file wants an evaluation.
    if errors and not found and annotations is not None:
        raise errors[-1]
    reason = "" if found else NO_READABLE_DETECTIONS
    images = images or next((run.images for run in runs if run.images is not None), None)
    texts = _by_text([*notes, *about], len(runs))
    return ReportInputs(runs, roles, truth, images, found, texts, reason, warnings)


def _other_teacher(run: WorkDir, runs: Sequence[WorkDir]) -> Iterator[str]:
    """Seeds are pooled as runs of one thing."""
    first = next(each for each in runs if each.name == run.name)
    mine, others = (
        {k: v for k, v in each.teacher.items() if k.endswith("sha256")} for each in (run, first)
    )
    if mine and others and mine != others:
        yield (
            f"its teacher is not that of {run_title(first)}, though both count as seeds of one "
            "run: name one of them differently"
        )


def _without_detections(runs: Sequence[WorkDir]) -> str:
    has_score = all(any(curve.group == "score" for curve in run.curves) for run in runs)
    noted = all((run.path / RESULT).is_file() for run in runs)
    return NO_BOXES if has_score and noted else NO_DETECTIONS


def _read_detections(
    runs: Sequence[WorkDir],
    files: Mapping[Path, Path],
    named: Container[Path],
    truth: Annotations,
    category_ids: CategoryIds,
) -> tuple[dict[Path, Detections], list[tuple[str, WorkDir]], list[InputError]]:
    """The detections by work dir, a note on those of each run, and what is wrong with others.

    Raises:
        InputError: What was named for a run cannot be read.
    """
    found: dict[Path, Detections] = {}
    notes: list[tuple[str, WorkDir]] = []
    errors: list[InputError] = []
    for run in runs:
        note = "no detection file, so it is not among the evaluated runs"
        if run.path in files:
            try:
                found[run.path] = read_detections(files[run.path], truth, category_ids)
                note = found[run.path].convention
            except InputError as error:
                if real_path(run.path) in named:
                    raise
                errors.append(error)
                note = f"not among the evaluated runs. {error}"
        notes.append((note, run))
    return found, notes, errors


def compare_inputs(
    inputs: ReportInputs,
    *,
    resamples: int = 1000,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = False,
) -> Comparison | None:
    """Compares the detections of a report's runs.

    Args:
        inputs: With the runs.
        resamples: Of the bootstrap; 0 leaves the intervals out.
        seed: Of the bootstrap.
        workers: Processes; by default as many as there are cores, or one for small files.
        progress: Show bars on the terminal's error stream.

    Returns:
        None where there is nothing to evaluate.
    """
    if inputs.annotations is None or not inputs.detections:
        return None
    scored = [
        Run(run.name, inputs.detections[run.path], run.parameters, run.step_seconds, run.seed)
        for run in inputs.runs
        if run.path in inputs.detections
    ]
    by_role = {inputs.roles[run.name]: run.name for run in scored}
    return compare_runs(
        inputs.annotations,
        scored,
        # Not the default: who has no detections leaves the role to nobody.
        baseline=by_role.get("baseline", ""),
        teacher=by_role.get("teacher", ""),
        resamples=resamples,
        seed=seed,
        workers=workers or workers_for(sum(len(run.detections) for run in scored)),
        progress=progress,
    )


def _read_runs(work_dirs: Sequence[Path], names: Mapping[Path, str]) -> list[WorkDir]:
    if not work_dirs:
        raise InputError("expected at least one work dir, got none")
    paths = [real_path(path) for path in work_dirs]
    twice = next((path for path in work_dirs if paths.count(real_path(path)) > 1), None)
    if twice is not None:
        raise InputError(f"{twice}: the same work dir was given twice")
    runs: list[WorkDir] = []
    first: dict[tuple[str, int | None], Path] = {}
    for path in work_dirs:
        run = read_work_dir(path)
        run = replace(run, name=names.get(path, run.name))
        other = first.setdefault((run.name, run.seed), path)
        # Whoever names both alike knows what is pooled.
        if other != path and not {other, path} <= names.keys():
            seed = "of unknown seeds" if run.seed is None else f"of seed {run.seed}"
            raise InputError(
                f"{other} and {path} are both {run.name!r} and {seed}, so they would be taken for "
                f"seeds of one run: name them, as NAME={other} and OTHER={path}"
            )
        runs.append(run)
    return runs


def _with_roles(
    runs: Sequence[WorkDir], baseline: str | None, teacher: str | None
) -> tuple[list[WorkDir], dict[str, Role]]:
    """Runs of one name together: baseline first, teacher last, the others as they were given."""
    names = list(dict.fromkeys(run.name for run in runs))
    first, last = find_roles(names, baseline, teacher)
    roles: dict[str, Role] = in_order(
        {
            name: "baseline" if name == first else "teacher" if name == last else "run"
            for name in names
        }
    )
    order = list(roles)
    return sorted(runs, key=lambda run: order.index(run.name)), roles


def _detection_files(runs: Sequence[WorkDir], named: Mapping[Path, Path]) -> dict[Path, Path]:
    """By work dir: what was named for it, or what it holds."""
    files = {run.path: run.detections for run in runs if run.detections is not None}
    paths = {real_path(run.path): run.path for run in runs}
    for work_dir, file in named.items():
        if real_path(work_dir) not in paths:
            raise InputError(f"{file} is named as detections of {work_dir}, which is not reported")
        files[paths[real_path(work_dir)]] = file
    return files


def _by_text(notes: Sequence[tuple[str, WorkDir]], num_runs: int) -> list[str]:
    """What several runs have in common is said once."""
    runs: dict[str, list[str]] = {}
    for text, run in notes:
        runs.setdefault(text, []).append(run_title(run))
    return [
        f"{'all runs' if num_runs == len(titles) > 1 else '; '.join(titles)}: {text}"
        for text, titles in runs.items()
    ]


def run_title(run: WorkDir) -> str:
    """A run's name and seed."""
    return run.name if run.seed is None else f"{run.name}, seed {run.seed}"


def _common_annotations(runs: Sequence[WorkDir]) -> Path | None:
    """The annotation file of all runs; a copy counts as the same file.

    Raises:
        InputError: Two runs were evaluated on different files.
    """
    named = [run for run in runs if run.annotations is not None]
    for other in named[1:]:
        first = named[0]
        if not _same_file(first.annotations, other.annotations):
            raise InputError(
                f"{first.path} and {other.path} were evaluated on different annotation files: "
                f"{first.annotations} and {other.annotations}. Report them apart, or name the "
                "file for all by --annotations"
            )
    return named[0].annotations if named else None


def _same_file(one: Path | None, other: Path | None) -> bool:
    if one is None or other is None or real_path(one) == real_path(other):
        return True
    return one.is_file() and other.is_file() and read_bytes(one) == read_bytes(other)
