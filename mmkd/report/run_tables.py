"""Tables on the trainings behind a report: runs, settings, machines, teachers, logged scores."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmkd.doctor import Examination
from mmkd.doctor.wording import TERM_HEADINGS, term_row
from mmkd.report.numbers import NOTHING, millions
from mmkd.report.tables import Cell, Column, Table, number_cell
from mmkd.work_dirs import WorkDir

__all__ = [
    "environment_table",
    "examination_table",
    "examinations",
    "logged_score_table",
    "run_table",
    "setting_table",
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


def run_table(groups: Mapping[str, Sequence[WorkDir]], roles: Mapping[str, str]) -> Table:
    """What was compared: a row for each name, whose runs are its seeds."""
    headings = ["run", "role", "framework", "seeds", "parameters", "time of a step", "checkpoint"]
    rows = []
    for name, runs in groups.items():
        seeds = [str(run.seed) for run in runs if run.seed is not None]
        parameters = runs[0].parameters
        times = [run.step_seconds for run in runs if run.step_seconds is not None]
        step = sum(times) / len(times) if times else math.nan
        files = sorted({run.checkpoint.name for run in runs if run.checkpoint is not None})
        rows.append(
            [
                Cell(name),
                Cell(roles[name]),
                Cell(", ".join(sorted({run.framework or "not trained here" for run in runs}))),
                Cell(", ".join(seeds) or NOTHING, len(runs)),
                number_cell(
                    math.nan if parameters is None else parameters, millions(parameters or 0)
                ),
                number_cell(step, f"{1e3 * step:.0f} ms"),
                Cell(", ".join(files) or NOTHING),
            ]
        )
    return Table("runs", "Runs", _columns(headings), rows)


def _columns(headings: Iterable[str]) -> list[Column]:
    return [Column(heading) for heading in headings]


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
            name: tuple(sorted({run.get(key, NOTHING) for run in runs}))
            for name, runs in known.items()
        }
        if len(set(texts.values())) > 1:
            rows.append([Cell(key), *(Cell(" / ".join(text)) for text in texts.values())])
    columns = _columns(["setting", *known])
    return Table("settings", "Settings that differ", columns, rows) if rows else None


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


def examination_table(groups: Mapping[str, Sequence[WorkDir]]) -> Table | None:
    """What ``mmkd doctor`` found of each run's terms: a row a term, of the first seed looked at."""
    rows = [
        [Cell(name), *map(Cell, term_row(term))]
        for name, found in examinations(groups).items()
        for term in found.terms
    ]
    columns = _columns(["run", *TERM_HEADINGS])
    return Table("doctor", "Terms in the first iterations", columns, rows) if rows else None


def examinations(groups: Mapping[str, Sequence[WorkDir]]) -> dict[str, Examination]:
    """By run, where one was kept."""
    found = {
        name: next((run.examination for run in runs if run.examination is not None), None)
        for name, runs in groups.items()
    }
    return {name: each for name, each in found.items() if each is not None}


def _side_by_side(seeds: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """What seeds have in common once, and each of what they differ in."""
    known = [entries for entries in seeds if entries]
    keys = dict.fromkeys(key for entries in known for key in entries)
    return {
        # Commands come in Markdown's quotes.
        key: "; ".join(dict.fromkeys(entries.get(key, NOTHING).strip("`") for entries in known))
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
        [Cell(entry), *(Cell(of_run.get(entry, NOTHING)) for of_run in found.values())]
        for entry in entries
    ]
    return Table(key, caption, _columns(["entry", *found]), rows)


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
            numbers = [number_cell(value, f"{value:.2f}") for value in (last, best)]
            rows.append([Cell(name), Cell(score), *numbers])
    columns = _columns(["run", "score", "at the end", "highest"])
    return Table("logged", "Scores logged in training", columns, rows) if rows else None
