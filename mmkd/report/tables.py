"""Tables as data, each built once; terminal, Markdown and the page show the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mmkd.evaluation.comparison import BASELINE, Comparison, GroupResult, Score
from mmkd.evaluation.intervals import Estimate
from mmkd.report.numbers import NOTHING, ends, estimate, millions, score, share, signed, spread
from mmkd.work_dirs.run_result import RunResult

__all__ = [
    "Cell",
    "Column",
    "Table",
    "class_table",
    "comparison_tables",
    "error_table",
    "metric_table",
    "number_cell",
    "result_table",
]


# A group's scores and their differences to the baseline, where it has any, by metric or class.
_ScoresOf = Callable[[GroupResult], tuple[Mapping[str, Score], Mapping[str, Estimate]]]


@dataclass(frozen=True)
class Cell:
    """What a cell of a table shows.

    Args:
        text: Shown.
        value: What rows are sorted by, where that is not the text; nan comes last.
        ends: Of the interval, as text; empty without one.
        note: Where there is room, in small print.
        verdict: Of a difference: whether its interval and all seeds leave out zero, and on which
            side.
    """

    text: str
    value: float | None = None
    ends: tuple[str, ...] = ()
    note: str = ""
    verdict: Literal["", "better", "worse", "unclear"] = ""


@dataclass(frozen=True)
class Column:
    """The heading of a column.

    Args:
        heading: Where there is room.
        short: In a terminal and in Markdown; by default the same.
    """

    heading: str
    short: str = ""


@dataclass(frozen=True)
class Table:
    """A table, whose first column names its rows.

    Args:
        key: Unique in the page.
        caption: What it shows, beside the page's explanations.
        columns: From left to right.
        rows: Each as many cells as there are columns; the first names the row.
        title: What it shows where nothing else explains it.
    """

    key: str
    caption: str
    columns: list[Column]
    rows: list[list[Cell]]
    title: str = ""

    @property
    def numeric(self) -> list[bool]:
        """Of each column: whether it is one of numbers."""
        return [
            all(row[index].value is not None for row in self.rows)
            for index in range(len(self.columns))
        ]


def number_cell(value: float, text: str) -> Cell:
    """A cell of a number, or of a dash where it is undefined."""
    return Cell(text, value) if math.isfinite(value) else Cell(NOTHING, math.nan)


def comparison_tables(comparison: Comparison, *, classes: bool = True) -> list[Table]:
    """Metrics, average precision by class, and errors.

    Args:
        comparison: What to show.
        classes: Include the table by class.
    """
    by_class = [class_table(comparison)] if classes else []
    return [metric_table(comparison), *by_class, error_table(comparison)]


def metric_table(comparison: Comparison) -> Table:
    """Every metric of every run, and the differences to the baseline."""
    table = _score_table(comparison, "metric", lambda g: (g.metrics, g.differences))
    return Table("scores", "Scores", *table, title=f"COCO figures, {_how(comparison)}")


def class_table(comparison: Comparison) -> Table:
    """Average precision of every class, likewise."""
    table = _score_table(comparison, "class", lambda g: (g.classes, g.class_differences))
    title = f"Average precision by class, {_how(comparison)}"
    return Table("classes", "Classes", *table, title=title)


def _how(comparison: Comparison) -> str:
    seeds = max(len(group.evaluations) for group in comparison.groups)
    about = ["%"]
    if seeds > 1:
        about.append(f"mean ± standard deviation of {seeds} seeds")
    if comparison.resamples:
        over = comparison.intervals_over
        about.append(
            f"difference [95% interval over {over}, {comparison.resamples} resamples of the images]"
        )
    return ", ".join(about)


def _score_table(
    comparison: Comparison,
    first: str,
    scores_of: _ScoresOf,
) -> tuple[list[Column], list[list[Cell]]]:
    """What the runs change first; a teacher's lead, which is no result, last."""
    groups = comparison.groups
    names = list(scores_of(groups[0])[0])
    results = [group for group in groups if group.role == "run"]
    others = [group for group in groups if group.role != "run"]
    columns = [
        Column(first),
        *_difference_columns(comparison, results),
        *(Column(group.name) for group in groups),
        *_difference_columns(comparison, others),
    ]
    rows = [
        [
            Cell(name),
            *_differences(name, results, scores_of),
            *(_score(scores_of(group)[0][name]) for group in groups),
            *_differences(name, others, scores_of),
        ]
        for name in names
    ]
    return columns, rows


def _difference_columns(comparison: Comparison, groups: Iterable[GroupResult]) -> list[Column]:
    of = comparison.baseline
    compared = [group.name for group in groups if group.differences]
    return [Column(f"{name} − {of}", f"{name} - {of}") for name in compared]


def _differences(row: str, groups: Iterable[GroupResult], scores_of: _ScoresOf) -> list[Cell]:
    found = [scores_of(group)[1] for group in groups]
    return [_difference(differences[row]) for differences in found if differences]


def _score(found: Score) -> Cell:
    return Cell(score(found), found.mean, note="no objects" if math.isnan(found.mean) else "")


def _difference(found: Estimate) -> Cell:
    cell = number_cell(found.value, estimate(found))
    if not found.has_interval:
        return cell
    verdict: Literal["better", "worse", "unclear"] = "unclear"
    if found.is_clear:
        verdict = "better" if found.low > 0 else "worse"
    return Cell(cell.text, cell.value, ends(found), verdict=verdict)


def error_table(comparison: Comparison) -> Table:
    """Counts of the types of error, and what correcting them would add to AP50."""
    groups = comparison.groups
    columns = [
        Column("type of error", "error"),
        *(Column(f"{group.name}, AP50 points", f"{group.name}, AP50") for group in groups),
        *(Column(f"{group.name}, count", group.name) for group in groups),
    ]
    rows = []
    for kind in groups[0].errors:
        found = [group.errors[kind] for group in groups]
        costs = [number_cell(cost, f"{cost:+.1f}") for _, cost in found]
        counts = [number_cell(count, f"{count:,.0f}") for count, _ in found]
        rows.append([Cell(kind), *costs, *counts])
    title = "Errors at IoU 0.50: their number, and the AP50 points that correcting them would add"
    return Table("errors", "Errors", columns, rows, title)


def result_table(results: Sequence[RunResult], comparison: Comparison | None = None) -> Table:
    """The scores of trained runs, a row for each name in the order of appearance.

    Args:
        results: With the same metrics. The first metric is compared with that of the runs named
            ``plain``, if there are any.
        comparison: Of the same runs, for the intervals and the share of the teacher's lead.
    """
    by_name: dict[str, list[RunResult]] = {}
    for result in results:
        by_name.setdefault(result.name, []).append(result)
    metrics = list(results[0].scores)
    plain = by_name.get(BASELINE)
    has_lead = comparison is not None and any(g.lead_closed for g in comparison.groups)
    headings = ["run", "seeds", *metrics]
    headings += [f"{metrics[0]} over {BASELINE}"] * (plain is not None)
    headings += ["lead closed"] * has_lead
    rows = []
    for name, runs in by_name.items():
        row = [Cell(name), Cell(str(len(runs)))]
        row += [Cell(spread([run.scores[metric] for run in runs])) for metric in metrics]
        if plain is not None:
            row.append(_gain(metrics[0], runs, plain, comparison))
        if has_lead:
            row.append(_lead_closed(name, comparison))
        trained = any(run.training_seconds for run in runs)
        seconds = spread([run.training_seconds for run in runs]) if trained else ""
        rows.append([*row, Cell(millions(runs[0].parameters)), Cell(seconds)])
    columns = [Column(each) for each in (*headings, "parameters", "training, s")]
    return Table("results", "Results", columns, rows)


def _gain(
    metric: str,
    runs: Sequence[RunResult],
    plain: Sequence[RunResult],
    comparison: Comparison | None,
) -> Cell:
    if runs[0].name == BASELINE:
        return Cell("")
    if comparison is not None:
        return _difference(comparison.group(runs[0].name).differences[metric])
    own, base = (
        math.fsum(run.scores[metric] for run in each) / len(each) for each in (runs, plain)
    )
    return Cell(signed(own - base))


def _lead_closed(name: str, comparison: Comparison | None) -> Cell:
    closed = comparison.group(name).lead_closed if comparison else None
    if closed is None:
        return Cell("")
    return Cell(share(closed.value), ends=ends(closed, is_share=True))
