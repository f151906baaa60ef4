"""A comparison for the terminal, a README, a spreadsheet and a program."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rich.box import HEAVY_HEAD, MARKDOWN, Box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmkd.evaluation.comparison import Comparison, Estimate, GroupResult, Score

__all__ = ["as_csv", "as_json", "conclusions", "markdown_tables", "rich_tables"]

NOTHING = "–"


def conclusions(comparison: Comparison) -> list[str]:
    """What the figures say, a sentence each run that is compared to the baseline.

    Without a baseline, the sentences state the runs' average precision.
    """
    if comparison.baseline is None:
        return [f"{g.name}: {_score(g.metrics['mAP'])} mAP." for g in comparison.groups]
    baseline = comparison.group(comparison.baseline)
    sentences = []
    for group in comparison.groups:
        if group.role != "run":
            continue
        gain = group.differences["mAP"]
        text = f"{group.name} against {baseline.name}: {gain.value:+.1f} mAP points"
        if not math.isnan(gain.low):
            text += f" (95% interval over images {gain.low:+.1f} to {gain.high:+.1f}"
            text += ")" if gain.low > 0 or gain.high < 0 else ", which holds 0)"
        if group.lead_closed is not None:
            text += f", {_share(group.lead_closed)} of the teacher's lead"
        sentences.append(f"{text}{_seeds(group, baseline)}.")
    return sentences


def _seeds(group: GroupResult, baseline: GroupResult) -> str:
    """What an interval over images does not tell: how much other seeds would change."""
    own, base = (each.metrics["mAP"].spread for each in (group, baseline))
    if own is None or base is None:
        return "; other seeds may differ by more"
    return f"; the seeds spread by ± {own:.1f} ({group.name}) and ± {base:.1f} ({baseline.name})"


def _share(share: Estimate) -> str:
    ends = "" if math.isnan(share.low) else f" ({share.low:.0%} to {share.high:.0%})"
    return f"{share.value:.0%}{ends}"


@dataclass(frozen=True)
class _Grid:
    """A table's text; every column but the first is of numbers."""

    title: str
    headings: list[str]
    rows: list[list[str]]

    def table(self, box: Box) -> Table:
        table = Table(title=escape(self.title), title_justify="left", box=box)
        for index, heading in enumerate(self.headings):
            table.add_column(escape(heading), justify="right" if index else "left")
        for row in self.rows:
            table.add_row(*map(escape, row))
        return table


def rich_tables(comparison: Comparison, *, classes: bool = True) -> list[Table]:
    """Summary, average precision by class, and errors.

    Args:
        comparison: What to show.
        classes: Include the table by class.
    """
    return [grid.table(HEAVY_HEAD) for grid in _grids(comparison, classes)]


def markdown_tables(comparison: Comparison, *, classes: bool = True) -> str:
    """The same for a README, and the conclusions."""
    stream = io.StringIO()
    # Wide enough that no cell is broken.
    console = Console(file=stream, width=100_000, color_system=None)
    for grid in _grids(comparison, classes):
        cells = [[cell.replace("|", "\\|") for cell in row] for row in (grid.headings, *grid.rows)]
        table = replace(grid, headings=cells[0], rows=cells[1:]).table(MARKDOWN)
        table.title = None
        console.print(f"**{escape(grid.title)}**\n")
        console.print(table)
    lines = (line.rstrip() for line in stream.getvalue().splitlines())
    return "\n".join([*lines, *(f"{text}\n" for text in conclusions(comparison))]).strip() + "\n"


def _grids(comparison: Comparison, classes: bool) -> list[_Grid]:
    seeds = max(len(group.evaluations) for group in comparison.groups)
    about = ["%"]
    if seeds > 1:
        about.append(f"mean ± standard deviation of {seeds} seeds")
    if comparison.resamples:
        about.append(f"difference [95% interval, {comparison.resamples} resamples of the images]")
    how = ", ".join(about)
    figures = _scores_grid(
        f"COCO figures, {how}", "metric", comparison, lambda g: (g.metrics, g.differences)
    )
    by_class = _scores_grid(
        f"Average precision by class, {how}",
        "class",
        comparison,
        lambda g: (g.classes, g.class_differences),
    )
    return [figures, *([by_class] if classes else []), _errors_grid(comparison)]


Columns = Callable[[GroupResult], tuple[Mapping[str, Score], Mapping[str, Estimate]]]


def _scores_grid(title: str, first: str, comparison: Comparison, columns: Columns) -> _Grid:
    headings = [first]
    for group in comparison.groups:
        headings.append(group.name)
        if columns(group)[1]:
            headings.append(f"{group.name} - {comparison.baseline}")
    rows = []
    for name in columns(comparison.groups[0])[0]:
        row = [name]
        for group in comparison.groups:
            scores, differences = columns(group)
            row.append(_score(scores[name]))
            if differences:
                row.append(_estimate(differences[name]))
        rows.append(row)
    return _Grid(title, headings, rows)


def _score(score: Score) -> str:
    if math.isnan(score.mean):
        return NOTHING
    return f"{score.mean:.1f}" + (f" ± {score.spread:.1f}" if score.spread is not None else "")


def _estimate(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return NOTHING
    ends = (
        "" if math.isnan(estimate.low) else f" [{_signed(estimate.low)}, {_signed(estimate.high)}]"
    )
    return f"{_signed(estimate.value)}{ends}"


def _signed(value: float) -> str:
    # Nothing is written as -0.0.
    return f"{round(value, 1) + 0.0:+.1f}"


def _errors_grid(comparison: Comparison) -> _Grid:
    headings = ["error"]
    for group in comparison.groups:
        headings += [group.name, "AP50"]
    rows = []
    for kind in comparison.groups[0].errors:
        row = [kind]
        for group in comparison.groups:
            count, cost = group.errors[kind]
            row += [f"{count:,.0f}", NOTHING if math.isnan(cost) else f"{cost:+.1f}"]
        rows.append(row)
    title = "Errors at IoU 0.50: their number, and the AP50 points that correcting them would add"
    return _Grid(title, headings, rows)


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Everything as plain values; what is undefined is None."""
    return {
        "annotations": str(comparison.annotations.file),
        "annotations_sha256": comparison.annotations.digest,
        "images": len(comparison.annotations.image_ids),
        "areas": {name: list(limits) for name, limits in comparison.settings.areas.items()},
        "max_detections": list(comparison.settings.max_detections),
        "baseline": comparison.baseline,
        "teacher": comparison.teacher,
        "resamples": comparison.resamples,
        "seed": comparison.seed,
        "runs": {group.name: _group_json(group) for group in comparison.groups},
    }


def _group_json(group: GroupResult) -> dict[str, Any]:
    return {
        "role": group.role,
        "detections": [
            dict(file=str(each.detections.file), ids=each.detections.convention)
            for each in group.evaluations
        ],
        "parameters": group.parameters,
        "step_seconds": group.step_seconds,
        "metrics": _entries(group.metrics, group.differences),
        "classes": _entries(group.classes, group.class_differences),
        "lead_closed": group.lead_closed and _estimate_json(group.lead_closed),
        "errors": {
            kind: dict(count=count, ap50=_known(cost))
            for kind, (count, cost) in group.errors.items()
        },
    }


def _entries(scores: Mapping[str, Score], differences: Mapping[str, Estimate]) -> dict[str, Any]:
    return {
        name: {
            "mean": _known(score.mean),
            "spread": _known(score.spread),
            "values": [_known(value) for value in score.values],
            "difference": _estimate_json(differences[name]) if differences else None,
        }
        for name, score in scores.items()
    }


def _estimate_json(estimate: Estimate) -> dict[str, float | None]:
    return {key: _known(getattr(estimate, key)) for key in ("value", "low", "high")}


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def as_csv(comparison: Comparison) -> str:
    """A line a run and figure: percent, points for differences, empty where undefined."""
    stream = io.StringIO()
    columns = "run role kind name mean spread difference difference_low difference_high"
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns.split())
    for group in comparison.groups:
        for kind, scores, differences in (
            ("metric", group.metrics, group.differences),
            ("class", group.classes, group.class_differences),
        ):
            for name, score in scores.items():
                change = differences.get(name)
                own = [change.value, change.low, change.high] if change else [None] * 3
                row = [_known(value) for value in (score.mean, score.spread, *own)]
                writer.writerow([group.name, group.role, kind, name, *row])
        for error, (count, cost) in group.errors.items():
            writer.writerow([group.name, group.role, "error count", error, count])
            writer.writerow([group.name, group.role, "error AP50", error, _known(cost)])
    return stream.getvalue()
