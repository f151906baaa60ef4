"""The last values of what was recorded inside distillations."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

from mmkd.dynamics_file import DynamicsRow
from mmkd.report.figures.dynamics import SINGULAR, Recordings
from mmkd.report.tables import Cell, Column, Table

__all__ = ["final_tables"]


def final_tables(runs: Recordings) -> list[Table]:
    """A table a term: a row a measure, a column a run and kind of images; the mean over the seeds
    of what their last step recorded, and its standard deviation. Singular values have a figure.

    Args:
        runs: By their names.
    """
    last = {run: [_last(seed) for seed in seeds] for run, seeds in runs.items()}
    rows = [row for seeds in last.values() for seed in seeds for row in seed]
    return [_table(term, last) for term in dict.fromkeys(row.term for row in rows)]


def _table(term: str, last: Recordings) -> Table:
    own = {
        run: [[row for row in seed if row.term == term] for seed in seeds]
        for run, seeds in last.items()
    }
    found = [(run, row) for run, seeds in own.items() for seed in seeds for row in seed]
    columns = dict.fromkeys((run, row.images) for run, row in found)
    rows = [
        [
            Cell(measure),
            *(_cell([_value(s, images, measure) for s in own[run]]) for run, images in columns),
        ]
        for measure in dict.fromkeys(row.measure for _, row in found)
    ]
    names = ["measure", *(f"{run}, {images} images" for run, images in columns)]
    headings = [Column(name) for name in names]
    return Table(f"dynamics-{term}", "", headings, rows, f"{term}, at the end")


def _last(rows: Sequence[DynamicsRow]) -> list[DynamicsRow]:
    end = max((row.step for row in rows), default=0)
    return [row for row in rows if row.step == end and not row.measure.startswith(SINGULAR)]


def _value(rows: Sequence[DynamicsRow], images: str, measure: str) -> float | None:
    found = (row.value for row in rows if (row.images, row.measure) == (images, measure))
    return next(found, None)


def _cell(values: Sequence[float | None]) -> Cell:
    known = [value for value in values if value is not None]
    if not known:
        return Cell("")
    spread = f" ± {stdev(known):.2g}" if len(known) > 1 else ""
    return Cell(f"{fmean(known):.3g}{spread}", fmean(known))
