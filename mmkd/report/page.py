"""A run, or several side by side, as one page that opens from disk: ``mmkd report``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import jinja2
from plotly.offline import get_plotlyjs

import mmkd
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
from mmkd.evaluation.detection_errors import ERROR_TYPES
from mmkd.evaluation.gallery import select_disagreements
from mmkd.report import charts
from mmkd.report.charts import Chart, RunStyle, run_styles
from mmkd.report.pictures import Picture, gallery_pictures
from mmkd.report.tables import (
    Table,
    class_table,
    environment_table,
    error_table,
    logged_score_table,
    metric_table,
    run_table,
    setting_table,
    teacher_table,
)
from mmkd.report.verdict import tiles, verdict
from mmkd.work_dirs import WorkDir, read_work_dir

__all__ = ["write_report"]

GENERATOR = '<meta name="generator" content="mmkd'
CURVES = {
    "score": "Scores",
    "task loss": "Task losses",
    "distillation": "Distillation terms",
    "ratio": "Ratio of distillation to task",
    "learning rate": "Learning rates",
}
NO_DETECTIONS = (
    "No detections were found in the work dirs. MMDetection writes them where "
    "val_evaluator.outfile_prefix is set, Ultralytics with save_json=True; or name a file by "
    "--detections."
)
NO_ANNOTATIONS = (
    "The work dirs name no annotation file that is there, so their detections were not evaluated: "
    "name one by --annotations."
)
NO_READABLE_DETECTIONS = (
    "No detection file in the work dirs can be read with the annotation file; the notes say why."
)
NO_CURVES = "The logs of these work dirs hold no losses, scores or learning rates."
# Detections below this score are left out of the gallery.
_MIN_SCORE = 0.3


def write_report(
    work_dirs: Sequence[Path],
    out: Path,
    *,
    annotations: Path | None = None,
    images: Path | None = None,
    detections: Mapping[Path, Path] | None = None,
    names: Mapping[Path, str] | None = None,
    baseline: str | None = None,
    teacher: str | None = None,
    category_ids: CategoryIds = "auto",
    resamples: int = 1000,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = False,
    tell: Callable[[str], None] = lambda note: None,
) -> Path:
    """Writes the report of one run, or of several side by side, as a self-contained HTML file.

    Runs of one name are seeds of the same thing. What a work dir lacks is left out, with a note
    that says how to get it. The same input gives the same bytes.

    Args:
        work_dirs: Of MMEngine or Ultralytics.
        out: The file to write; a report that is there already is replaced.
        annotations: COCO annotation file; by default the one that the work dirs name.
        images: Folder of its images, likewise.
        detections: Detection file by work dir, where it does not hold its own.
        names: Of runs by work dir, where not the work dir's own.
        baseline: Name of the runs to compare the others to; ``plain`` where there are such.
        teacher: Name of the teacher's runs; ``teacher`` where there are such.
        category_ids: See :func:`mmkd.evaluation.coco_files.read_detections`.
        resamples: Of the bootstrap; 0 leaves the intervals out.
        seed: Of the bootstrap.
        workers: Processes; by default as many as there are cores, or one for small files. The page
            is the same with any number.
        progress: Show bars on the terminal's error stream.
        tell: Called with what the page lacks and why.

    Returns:
        The file.

    Raises:
        InputError: No work dirs, one twice, or two that would be one seed of the same run; a named
            file that cannot be read, work dirs on different annotation files, a baseline or teacher
            that is none of the runs, or ``out`` is something else than a report.
    """
    check_out(out)
    runs, roles = _with_roles(_read_runs(work_dirs, names or {}), baseline, teacher)
    inputs = _read_inputs(runs, roles, annotations, images, detections or {}, category_ids)
    for run in runs:
        for note in run.notes:
            tell(f"{run.path}: {note}")
    if inputs.unevaluated:
        tell(inputs.unevaluated)
    comparison = None
    if inputs.annotations is not None and inputs.detections:
        scored = [
            Run(run.name, inputs.detections[run.path], run.parameters, run.step_seconds)
            for run in runs
            if run.path in inputs.detections
        ]
        by_role = {roles[run.name]: run.name for run in scored}
        comparison = compare_runs(
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
    page = _render(inputs, comparison)
    out.parent.mkdir(parents=True, exist_ok=True)
    # In one step: whoever is stopped while writing leaves no half of a page.
    unfinished = out.with_name(f"{out.name}.part")
    # A name may hold half of a surrogate pair, which JSON can spell and UTF-8 cannot.
    unfinished.write_text(page, encoding="utf-8", errors="replace")
    unfinished.replace(out)
    return out


def check_out(out: Path) -> None:
    """Makes sure that a report can be written there, and replaces nothing else.

    Raises:
        InputError: It cannot.
    """
    if out.is_dir():
        raise InputError(f"{out}: expected the name of a file to write, found a folder")
    nearest = next(each for each in out.absolute().parents if each.exists())
    if not nearest.is_dir():
        raise InputError(f"{out}: expected a file in a folder, but {nearest} is a file")
    if out.exists():
        with out.open("rb") as stream:
            start = stream.read(2000).decode(errors="replace")
        if GENERATOR not in start:
            raise InputError(f"{out} exists and is no report of mmkd's: name another file")


@dataclass(frozen=True, eq=False)
class _Inputs:
    """What the page is made from.

    Args:
        runs: Grouped by name: the baseline first, the teacher last.
        roles: By name.
        annotations: None where there is nothing to evaluate with.
        images: Folder of the images.
        detections: By work dir.
        notes: What the reader should know about the files.
        unevaluated: Why nothing was evaluated, and how to have it.
    """

    runs: list[WorkDir]
    roles: dict[str, Role]
    annotations: Annotations | None
    images: Path | None
    detections: dict[Path, Detections]
    notes: list[str] = field(default_factory=list)
    unevaluated: str = ""

    @property
    def groups(self) -> dict[str, list[WorkDir]]:
        """Runs by name."""
        groups: dict[str, list[WorkDir]] = {}
        for run in self.runs:
            groups.setdefault(run.name, []).append(run)
        return groups


def _read_inputs(
    runs: list[WorkDir],
    roles: dict[str, Role],
    annotations: Path | None,
    images: Path | None,
    detections: Mapping[Path, Path],
    category_ids: CategoryIds,
) -> _Inputs:
    if images is not None and not images.is_dir():
        raise InputError(f"{images}: expected the folder of the images, found no folder")
    notes = [(note, run) for run in runs for note in run.notes]
    files = _detection_files(runs, detections)
    named = {work_dir.resolve() for work_dir in detections}
    truth_file = annotations or _common_annotations(runs)
    if not files or truth_file is None:
        reason = NO_ANNOTATIONS if files else NO_DETECTIONS
        return _Inputs(runs, roles, None, None, {}, _by_text(notes, len(runs)), reason)
    truth = read_annotations(truth_file)
    found: dict[Path, Detections] = {}
    error: InputError | None = None
    for run in runs:
        note = "no detection file, so it is not among the evaluated runs"
        if run.path in files:
            try:
                found[run.path] = read_detections(files[run.path], truth, category_ids)
                note = found[run.path].convention
            except InputError as each:
                if run.path.resolve() in named:
                    raise
                error, note = each, f"not among the evaluated runs. {each}"
        notes.append((note, run))
    # Whoever names the annotation file wants an evaluation.
    if error is not None and not found and annotations is not None:
        raise error
    reason = "" if found else NO_READABLE_DETECTIONS
    images = images or next((run.images for run in runs if run.images is not None), None)
    return _Inputs(runs, roles, truth, images, found, _by_text(notes, len(runs)), reason)


def _read_runs(work_dirs: Sequence[Path], names: Mapping[Path, str]) -> list[WorkDir]:
    if not work_dirs:
        raise InputError("expected at least one work dir, got none")
    paths = [path.resolve() for path in work_dirs]
    twice = next((path for path in work_dirs if paths.count(path.resolve()) > 1), None)
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
    roles: dict[str, Role] = {
        name: "baseline" if name == first else "teacher" if name == last else "run"
        for name in names
    }
    places = {"baseline": 0, "run": 1, "teacher": 2}
    order = sorted(names, key=lambda name: (places[roles[name]], names.index(name)))
    ordered = sorted(runs, key=lambda run: order.index(run.name))
    return ordered, {name: roles[name] for name in order}


def _detection_files(runs: Sequence[WorkDir], named: Mapping[Path, Path]) -> dict[Path, Path]:
    """By work dir: what was named for it, or what it holds."""
    files = {run.path: run.detections for run in runs if run.detections is not None}
    paths = {run.path.resolve(): run.path for run in runs}
    for work_dir, file in named.items():
        if work_dir.resolve() not in paths:
            raise InputError(f"{file} is named as detections of {work_dir}, which is not reported")
        files[paths[work_dir.resolve()]] = file
    return files


def _by_text(notes: Sequence[tuple[str, WorkDir]], num_runs: int) -> list[str]:
    """What several runs have in common is said once."""
    runs: dict[str, list[str]] = {}
    for text, run in notes:
        runs.setdefault(text, []).append(_title(run))
    return [
        f"{'all runs' if num_runs == len(titles) > 1 else '; '.join(titles)}: {text}"
        for text, titles in runs.items()
    ]


def _title(run: WorkDir) -> str:
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
    if one is None or other is None or one.resolve() == other.resolve():
        return True
    return one.is_file() and other.is_file() and one.read_bytes() == other.read_bytes()


def _render(inputs: _Inputs, comparison: Comparison | None) -> str:
    groups, roles = inputs.groups, inputs.roles
    styles = run_styles(roles)
    sections = {
        title: found
        for group, title in CURVES.items()
        if (found := charts.curve_charts(inputs.runs, styles, group))
    }
    dynamics = charts.curve_charts(inputs.runs, styles, "dynamics")
    evaluation = _evaluation_charts(comparison, styles)
    headline = [charts.score_chart(comparison, styles)] if comparison else []
    everything = [*headline, *evaluation, *dynamics, *(c for s in sections.values() for c in s)]
    pictures = _pictures(inputs, comparison)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mmkd.report", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("page.html.j2").render(
        version=mmkd.__version__,
        title=" · ".join(groups),
        verdict=verdict(comparison, groups, roles),
        tiles=tiles(comparison),
        headline=headline,
        styles=styles,
        tables=_tables(inputs, comparison),
        curves=sections,
        dynamics=dynamics,
        evaluation=evaluation,
        pictures=pictures,
        categories=_shown_categories(inputs.annotations, pictures),
        error_types=ERROR_TYPES,
        min_score=_MIN_SCORE,
        has_seeds=any(len(runs) > 1 for runs in groups.values()),
        work_dirs=[(_title(run), run.path) for run in inputs.runs],
        notes=inputs.notes,
        unevaluated=inputs.unevaluated,
        no_curves=NO_CURVES,
        comparison=comparison,
        figures={chart.key: chart.as_json() for chart in everything},
        plotly=get_plotlyjs(),
    )


def _tables(inputs: _Inputs, comparison: Comparison | None) -> dict[str, Table]:
    groups = inputs.groups
    found = [
        run_table(groups, inputs.roles),
        setting_table(groups),
        environment_table(groups),
        teacher_table(groups),
        logged_score_table(groups),
    ]
    if comparison is not None:
        found += [metric_table(comparison), class_table(comparison), error_table(comparison)]
    return {table.key: table for table in found if table is not None}


def _evaluation_charts(
    comparison: Comparison | None, styles: Mapping[str, RunStyle]
) -> list[Chart]:
    if comparison is None:
        return []
    found = [
        charts.difference_chart(comparison, styles),
        charts.class_chart(comparison, styles),
        charts.size_chart(comparison, styles),
        *charts.precision_charts(comparison, styles),
        *charts.error_charts(comparison, styles),
        *charts.tradeoff_charts(comparison, styles),
    ]
    return [chart for chart in found if chart is not None]


def _pictures(inputs: _Inputs, comparison: Comparison | None) -> list[Picture]:
    """Of the first seed of each run."""
    if comparison is None or inputs.annotations is None:
        return []
    shown: dict[str, Detections] = {}
    for run in inputs.runs:
        if run.path in inputs.detections:
            shown.setdefault(run.name, inputs.detections[run.path])
    selected = select_disagreements(inputs.annotations, shown, min_score=_MIN_SCORE)
    return gallery_pictures(selected, inputs.annotations, inputs.images)


def _shown_categories(
    annotations: Annotations | None, pictures: Sequence[Picture]
) -> list[tuple[int, str]]:
    """The classes that the gallery's filter offers: those that it shows."""
    if annotations is None:
        return []
    shown = {mark.category for p in pictures for panel in p.panels for mark in panel.marks}
    return [(index, annotations.category_names[index]) for index in sorted(shown)]
