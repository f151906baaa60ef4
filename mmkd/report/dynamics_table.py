"""The last values of what was recorded inside distillations."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

from mmkd.dynamics_file import DynamicsRow
from mmkd.report.figures.dynamics import Recordings
from mmkd.report.tables import Cell, Column, Table

__all__ = ["final_table"]


def final_table(runs: Recordings) -> Table:
    """A row a term and measure, a column a run and kind of images: the mean over the seeds of what
    their last step recorded, and its standard deviation.

    Args:
        runs: By their names.
    """
    last = {run: [_last(seed) for seed in seeds] for run, seeds in runs.items()}
    keys = dict.fromkeys(
        (row.term, row.measure) for seeds in last.values() for seed in seeds for row in seed
    )
    columns = dict.fromkeys(
        (run, row.images) for run, seeds in last.items() for seed in seeds for row in seed
    )
    rows = [
        [
            Cell(f"{term} {measure}"),
            *(
                _cell([_value(seed, images, term, measure) for seed in last[run]])
                for run, images in columns
            ),
        ]
        for term, measure in keys
    ]
    names = ["term and measure", *(f"{run}, {images}" for run, images in columns)]
    headings = [Column(name) for name in names]
    return Table("dynamics", "", headings, rows, "What was recorded last")


def _last(rows: Sequence[DynamicsRow]) -> list[DynamicsRow]:
    end = max((row.step for row in rows), default=0)
    return [row for row in rows if row.step == end]


def _value(rows: list[DynamicsRow], images: str, term: str, measure: str) -> float | None:
    key = (images, term, measure)
    return next((row.value for row in rows if row[1:4] == key), None)


def _cell(values: list[float | None]) -> Cell:
    known = [value for value in values if value is not None]
    if not known:
        return Cell("")
    spread = f" ± {stdev(known):.2g}" if len(known) > 1 else ""
    return Cell(f"{fmean(known):.3g}{spread}", fmean(known))
