"""A run, or several side by side, as one page that opens from disk: ``mmkd report``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

import mmkd
from mmkd.doctor import advise
from mmkd.doctor.wording import sentences
from mmkd.errors import InputError
from mmkd.evaluation.coco_files import Annotations, CategoryIds, Detections
from mmkd.evaluation.comparison import Comparison
from mmkd.evaluation.detection_errors import ERROR_TYPES
from mmkd.evaluation.gallery import select_disagreements
from mmkd.output_files import check_output, write_text
from mmkd.report.curves import CurveChart, curve_charts, curve_looks
from mmkd.report.figures import headline_panel, page_panels
from mmkd.report.figures.svg import inline_svgs
from mmkd.report.inputs import ReportInputs, compare_inputs, read_inputs, run_title
from mmkd.report.numbers import typographic
from mmkd.report.pictures import Picture, gallery_pictures
from mmkd.report.run_tables import (
    environment_table,
    examination_table,
    examinations,
    logged_score_table,
    run_table,
    setting_table,
    teacher_table,
)
from mmkd.report.sentences import tiles, verdict
from mmkd.report.style import RunStyle, run_styles
from mmkd.report.tables import Table, comparison_tables

__all__ = ["check_out", "write_page", "write_report"]

GENERATOR = '<meta name="generator" content="mmkd'
DYNAMICS = "Training dynamics"
CURVES = {
    "score": "Scores",
    "task loss": "Task losses",
    "distillation": "Distillation terms",
    "weight": "Weights of the terms",
    "share": "Shares of the gradient at the student's features",
    "ratio": "Ratio of distillation to task",
    "learning rate": "Learning rates",
    "dynamics": DYNAMICS,
}
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
    inputs = read_inputs(
        work_dirs,
        annotations=annotations,
        images=images,
        detections=detections,
        names=names,
        baseline=baseline,
        teacher=teacher,
        category_ids=category_ids,
    )
    for run in inputs.runs:
        for note in run.notes:
            tell(f"{run.path}: {note}")
    for warning in inputs.warnings:
        tell(warning)
    if inputs.unevaluated:
        tell(inputs.unevaluated)
    comparison = compare_inputs(
        inputs, resamples=resamples, seed=seed, workers=workers, progress=progress
    )
    return write_page(inputs, comparison, out)


def write_page(inputs: ReportInputs, comparison: Comparison | None, out: Path) -> Path:
    """Writes the page.

    Args:
        inputs: What it is made from.
        comparison: Of the inputs (:func:`mmkd.report.inputs.compare_inputs`).
        out: The file to write.

    Returns:
        The file.
    """
    page = _render(inputs, comparison)
    write_text(out, page)
    return out


def check_out(out: Path) -> None:
    """Makes sure that a report can be written there, and replaces nothing else.

    Raises:
        InputError: It cannot.
    """
    check_output(out)
    if out.exists():
        with out.open("rb") as stream:
            start = stream.read(2000).decode(errors="replace")
        if GENERATOR not in start:
            raise InputError(f"{out} exists and is no report of mmkd's: name another file")


def _render(inputs: ReportInputs, comparison: Comparison | None) -> str:
    styles = run_styles(inputs.roles)
    sections = {title: curve_charts(inputs.runs, styles, group) for group, title in CURVES.items()}
    has_logs = any(charts for title, charts in sections.items() if title != DYNAMICS)
    return _template().render(
        _evaluation(inputs, comparison, styles),
        version=mmkd.__version__,
        title=" · ".join(inputs.groups),
        verdict=verdict(comparison, inputs.groups, inputs.roles),
        tiles=tiles(comparison),
        styles=styles,
        tables=_tables(inputs, comparison),
        curves={title: charts for title, charts in sections.items() if charts},
        has_seeds=any(len(runs) > 1 for runs in inputs.groups.values()),
        work_dirs=[(run_title(run), run.path) for run in inputs.runs],
        notes=inputs.notes,
        warnings=inputs.warnings,
        examined={
            name: dict(sentences=list(sentences(found)), advice=advise(found))
            for name, found in examinations(inputs.groups).items()
        },
        unevaluated=inputs.unevaluated,
        no_curves="" if has_logs else NO_CURVES,
        comparison=comparison,
        curve_data=_curve_data(list(sections.values()), styles),
        library=_library(),
    )


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mmkd.report", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["typographic"] = typographic
    return environment.get_template("page.html.j2")


def _evaluation(
    inputs: ReportInputs, comparison: Comparison | None, styles: Mapping[str, RunStyle]
) -> dict[str, Any]:
    """The figures and the gallery."""
    pictures = _pictures(inputs, comparison)
    return dict(
        _figures(comparison, styles),
        pictures=pictures,
        categories=_shown_categories(inputs.annotations, pictures),
        error_types=ERROR_TYPES,
        min_score=_MIN_SCORE,
    )


def _figures(comparison: Comparison | None, styles: Mapping[str, RunStyle]) -> dict[str, Any]:
    """The one that the page begins with, and the others by what they are about."""
    if comparison is None:
        return dict(headline=None, figures={})
    evaluated = {group.name for group in comparison.groups}
    own = {name: style for name, style in styles.items() if name in evaluated}
    headline, groups = headline_panel(comparison, own), page_panels(comparison, own)
    panels = [*([headline] if headline else []), *chain(*groups.values())]
    drawn = {
        panel.key: dict(key=panel.key, caption=panel.caption, svg=Markup(svg))
        for panel, svg in zip(panels, inline_svgs(panels, styles.values()), strict=True)
    }
    return dict(
        headline=drawn[headline.key] if headline else None,
        figures={about: [drawn[panel.key] for panel in found] for about, found in groups.items()},
    )


def _curve_data(
    groups: Sequence[Sequence[CurveChart]], styles: Mapping[str, RunStyle]
) -> dict[str, Any]:
    charts = {chart.key: chart.as_json() for charts in groups for chart in charts}
    return dict(runs=curve_looks(styles.values()), charts=charts)


def _library() -> dict[str, Markup]:
    """uPlot's script and style sheet, and under which terms they are passed on."""
    folder = files("mmkd.report") / "vendor" / "uplot"
    texts = {
        name: (folder / file).read_text("utf-8")
        for name, file in (
            ("script", "uPlot.iife.min.js"),
            ("style", "uPlot.min.css"),
            ("license", "LICENSE"),
        )
    }
    return {name: Markup(text.strip()) for name, text in texts.items()}


def _tables(inputs: ReportInputs, comparison: Comparison | None) -> dict[str, Table]:
    groups = inputs.groups
    found = [
        run_table(groups, inputs.roles),
        setting_table(groups),
        environment_table(groups),
        teacher_table(groups),
        examination_table(groups),
        logged_score_table(groups),
    ]
    if comparison is not None:
        found += comparison_tables(comparison)
    return {table.key: table for table in found if table is not None}


def _pictures(inputs: ReportInputs, comparison: Comparison | None) -> list[Picture]:
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
