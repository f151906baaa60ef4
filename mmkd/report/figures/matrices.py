"""Heat maps of correlation matrices, as they were last recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

from mmkd.dynamics_file import DynamicsMatrix
from mmkd.report.figures.canvas import LOOKS
from mmkd.report.figures.grid import across, grid, save_figure
from mmkd.report.figures.panels import wrapped

__all__ = ["draw_matrices"]

# Title, and what rows and columns are.
_SAYINGS = {
    "self_correlation_matrix": (
        "Correlation among the student's channels", "student's channel", "student's channel"
    ),
    "cross_correlation_matrix": (
        "Correlation of the student's channels with the teacher's",
        "student's channel",
        "teacher's channel, sorted",
    ),
}  # fmt: skip


def draw_matrices(runs: Mapping[str, Sequence[DynamicsMatrix]], folder: Path) -> list[Path]:
    """A figure a measure, with a panel a term and run: of validation images where there are any.

    Args:
        runs: By their names, what a seed of each recorded.
        folder: Made where it is missing; files of the same names are replaced.

    Returns:
        The pictures, without their SVG and CSV.
    """
    shown = {run: _held_out(matrices) for run, matrices in runs.items()}
    measures = dict.fromkeys(each.measure for found in shown.values() for each in found)
    with matplotlib.rc_context(LOOKS):
        return [_figure(measure, shown, folder) for measure in measures if measure in _SAYINGS]


def _held_out(matrices: Sequence[DynamicsMatrix]) -> list[DynamicsMatrix]:
    splits = {each.images for each in matrices}
    split = "val" if "val" in splits else next(iter(sorted(splits)), None)
    return [each for each in matrices if each.images == split]


def _figure(measure: str, runs: Mapping[str, Sequence[DynamicsMatrix]], folder: Path) -> Path:
    found = [(run, each) for run, own in runs.items() for each in own if each.measure == measure]
    terms = list(dict.fromkeys(each.term for _, each in found))
    found.sort(key=lambda pair: terms.index(pair[1].term))
    title, rows, columns = _SAYINGS[measure]
    # A row a term; terms differ in their widths.
    figure, axes = grid(len(found), title, across(len(runs)), shared=False)
    for axis, (run, each) in zip(axes, found, strict=True):
        shown = each.matrix[:, _order(each)]
        image = axis.imshow(
            shown, vmin=-1, vmax=1, cmap="RdBu_r", interpolation="nearest", aspect="auto"
        )
        axis.set_title(wrapped(f"{each.term}, {run}, {each.images} images", 40), fontsize=10)
        axis.set_xlabel(columns)
        axis.set_ylabel(rows)
    figure.colorbar(image, ax=axes, shrink=0.8)
    table = (
        (run, each.term, each.images, row, column, float(value))
        for run, each in found
        for row, values in enumerate(each.matrix)
        for column, value in enumerate(values)
    )
    head = ("run", "term", "images", "row", "column", "correlation")
    return save_figure(figure, folder, measure, head, table)


def _order(each: DynamicsMatrix) -> np.ndarray:
    """Of the columns. Teachers number their channels at will: beside that of the student which each
    is most like, what has a counterpart lies on the diagonal."""
    if each.measure.startswith("self"):
        return np.arange(each.matrix.shape[1])
    return np.argsort(np.abs(each.matrix).argmax(axis=0), kind="stable")
