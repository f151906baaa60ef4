"""Tables of the report's page, as plain cells."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mmkd.evaluation.comparison import Comparison, Estimate, GroupResult, Score
from mmkd.evaluation.detection_errors import ERROR_TYPES
from mmkd.work_dirs import WorkDir

__all__ = [
    "Cell",
    "Table",
    "class_table",
    "environment_table",
    "error_table",
    "logged_score_table",
    "metric_table",
    "run_table",
    "setting_table",
    "signed",
    "teacher_table",
]

# What differs between any two runs without changing what they compute.
_IRRELEVANT = {
    "cfg",
    "exist_ok",
    "experiment_name",
    "log_level",
    "mode",
    "name",
    "project",
    "randomness.seed",
    "resume",
    "save_dir",
    "seed",
    "visualizer.name",
    "work_dir",
}
_NOTHING = "–"


@dataclass(frozen=True)
class Cell:
    """What a cell of a table shows.

    Args:
        text: Shown.
        value: What rows are sorted by, where that is not the text; nan comes last.
        note: Shown smaller, below the text.
        verdict: Of a difference: whether its interval leaves out zero, and on which side.
    """

    text: str
    value: float | None = None
    note: str = ""
    verdict: Literal["", "better", "worse", "unclear"] = ""


@dataclass(frozen=True)
class Table:
    """A table whose rows the page sorts.

    Args:
        key: Unique in the page.
        caption: What it shows.
        headings: Of the columns.
        rows: Each as many cells as there are headings; the first names the row.
    """

    key: str
    caption: str
    headings: list[str]
    rows: list[list[Cell]]


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign, as it is printed."""
    # Zero is added because a small negative number rounds to -0.0.
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−")


def _number(value: float, digits: int = 1) -> Cell:
    if not math.isfinite(value):
        return Cell(_NOTHING, math.nan)
    return Cell(f"{value:.{digits}f}", value)


def _score(score: Score) -> Cell:
    if not math.isfinite(score.mean):
        return Cell(_NOTHING, math.nan, "no objects")
    spread = f" ± {score.spread:.1f}" if score.spread is not None else ""
    return Cell(f"{score.mean:.1f}{spread}", score.mean)


def _difference(found: Estimate) -> Cell:
    if not math.isfinite(found.value):
        return Cell(_NOTHING, math.nan)
    text = signed(found.value)
    if not math.isfinite(found.low):
        return Cell(text, found.value)
    note = f"{signed(found.low)} to {signed(found.high)}"
    if found.low > 0:
        return Cell(text, found.value, note, "better")
    return Cell(text, found.value, note, "worse" if found.high < 0 else "unclear")


def _score_table(
    key: str,
    caption: str,
    heading: str,
    comparison: Comparison,
    names: Sequence[str],
    scores: Sequence[tuple[GroupResult, Mapping[str, Score], Mapping[str, Estimate]]],
) -> Table:
    compared = [(group, differences) for group, _, differences in scores if differences]
    return Table(
        key,
        caption,
        [
            heading,
            *(group.name for group, _, _ in scores),
            *(f"{group.name} − {comparison.baseline}" for group, _ in compared),
        ],
        [
            [
                Cell(name),
                *(_score(of_group[name]) for _, of_group, _ in scores),
                *(_difference(differences[name]) for _, differences in compared),
            ]
            for name in names
        ],
    )


def metric_table(comparison: Comparison) -> Table:
    """Every metric of every run, and the differences to the baseline."""
    groups = comparison.groups
    names = list(groups[0].metrics)
    scores = [(group, group.metrics, group.differences) for group in groups]
    return _score_table("scores", "Scores", "metric", comparison, names, scores)


def class_table(comparison: Comparison) -> Table:
    """Average precision of every class, likewise."""
    names = comparison.annotations.category_names
    scores = [(group, group.classes, group.class_differences) for group in comparison.groups]
    return _score_table("classes", "Classes", "class", comparison, names, scores)


def error_table(comparison: Comparison) -> Table:
    """Counts and costs of the types of error."""
    groups = comparison.groups
    headings = [f"{g.name}, {what}" for what in ("count", "AP50 points") for g in groups]
    rows = [
        [
            Cell(name),
            *(_number(g.errors[name][0], 0 if len(g.evaluations) == 1 else 1) for g in groups),
            *(_number(g.errors[name][1], 2) for g in groups),
        ]
        for name in ERROR_TYPES
    ]
    return Table("errors", "Errors", ["type of error", *headings], rows)


def run_table(groups: Mapping[str, Sequence[WorkDir]], roles: Mapping[str, str]) -> Table:
    """What was compared: a row for each name, whose runs are its seeds."""
    headings = ["run", "role", "framework", "seeds", "parameters", "time of a step", "checkpoint"]
    rows = []
    for name, runs in groups.items():
        seeds = [str(run.seed) for run in runs if run.seed is not None]
        first = runs[0]
        times = [run.step_seconds for run in runs if run.step_seconds is not None]
        step = sum(times) / len(times) if times else math.nan
        files = sorted({run.checkpoint.name for run in runs if run.checkpoint is not None})
        rows.append(
            [
                Cell(name),
                Cell(roles[name]),
                Cell(", ".join(sorted({run.framework or "not trained here" for run in runs}))),
                Cell(", ".join(seeds) or _NOTHING, len(runs)),
                _parameters(first.parameters),
                Cell(f"{1e3 * step:.0f} ms", step) if times else Cell(_NOTHING, math.nan),
                Cell(", ".join(files) or _NOTHING),
            ]
        )
    return Table("runs", "Runs", headings, rows)


def _parameters(count: int | None) -> Cell:
    if count is None:
        return Cell(_NOTHING, math.nan)
    return Cell(f"{count / 1e6:.2f} M", count)


def setting_table(groups: Mapping[str, Sequence[WorkDir]]) -> Table | None:
    """The settings in which runs of different names differ; None where there are none."""
    values = {
        name: [_settings_of(run) for run in runs if run.settings] for name, runs in groups.items()
    }
    known = {name: runs for name, runs in values.items() if runs}
    keys = sorted({key for runs in known.values() for run in runs for key in run})
    rows = []
    for key in keys:
        texts = {
            name: tuple(sorted({run.get(key, _NOTHING) for run in runs}))
            for name, runs in known.items()
        }
        if len(set(texts.values())) > 1:
            rows.append([Cell(key), *(Cell(" / ".join(text)) for text in texts.values())])
    return Table("settings", "Settings that differ", ["setting", *known], rows) if rows else None


def _settings_of(run: WorkDir) -> dict[str, str]:
    """As text, less what only names the run."""
    own = [str(run.settings[key]) for key in ("work_dir", "save_dir") if run.settings.get(key)]
    return {
        key: _without(own, _text(value))
        for key, value in run.settings.items()
        if key not in _IRRELEVANT
    }


def _without(folders: Sequence[str], text: str) -> str:
    """A path inside the run's own folder says nothing about how the run was made."""
    for folder in folders:
        text = text.replace(folder, "work dir")
    return text


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def environment_table(groups: Mapping[str, Sequence[WorkDir]]) -> Table | None:
    """What the runs were made on; where they differ, by run."""
    found = {name: _side_by_side(run.environment for run in runs) for name, runs in groups.items()}
    return _by_run("environment", "Environment", found)


def teacher_table(groups: Mapping[str, Sequence[WorkDir]]) -> Table | None:
    """Which teacher the distilled runs had."""
    found = {name: _side_by_side(run.teacher for run in runs) for name, runs in groups.items()}
    return _by_run("teacher", "Teacher", found)


def _side_by_side(seeds: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """What seeds have in common once, and each of what they differ in."""
    known = [entries for entries in seeds if entries]
    keys = dict.fromkeys(key for entries in known for key in entries)
    return {
        # Commands come in Markdown's quotes.
        key: "; ".join(dict.fromkeys(entries.get(key, _NOTHING).strip("`") for entries in known))
        for key in keys
    }


def _by_run(key: str, caption: str, found: Mapping[str, Mapping[str, str]]) -> Table | None:
    """A column for every run that has such entries, or a single one where all agree."""
    found = {name: entries for name, entries in found.items() if entries}
    entries = list(dict.fromkeys(entry for of_run in found.values() for entry in of_run))
    if not entries:
        return None
    if all(of_run == next(iter(found.values())) for of_run in found.values()):
        found = {", ".join(found): next(iter(found.values()))}
    rows = [
        [Cell(entry), *(Cell(of_run.get(entry, _NOTHING)) for of_run in found.values())]
        for entry in entries
    ]
    return Table(key, caption, ["", *found], rows)


def logged_score_table(groups: Mapping[str, Sequence[WorkDir]]) -> Table | None:
    """The last and the highest value of each score that was logged, as means over seeds."""
    rows = []
    for name, runs in groups.items():
        scores: dict[str, list[list[float]]] = {}
        for run in runs:
            for curve in run.curves:
                if curve.group == "score" and curve.points:
                    scores.setdefault(curve.name, []).append([y for _, y in curve.points])
        for score, curves in scores.items():
            last = sum(values[-1] for values in curves) / len(curves)
            best = sum(max(values) for values in curves) / len(curves)
            rows.append([Cell(name), Cell(score), _number(last, 2), _number(best, 2)])
    headings = ["run", "score", "at the end", "highest"]
    return Table("logged", "Scores logged in training", headings, rows) if rows else None
