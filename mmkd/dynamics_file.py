"""``dynamics.csv``: what is recorded of a distillation, a row a value; and beside it
``dynamics_matrices.npz``, the matrices of the last record."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from mmkd.errors import InputError
from mmkd.output_files import write_text, written_whole

__all__ = [
    "DYNAMICS_FILE",
    "MATRIX",
    "DynamicsFile",
    "DynamicsMatrix",
    "DynamicsRow",
    "Measures",
    "logged_name",
    "read_dynamics",
    "read_matrices",
]

DYNAMICS_FILE = "dynamics.csv"
# How measures end that are matrices.
MATRIX = "_matrix"
# By their names, numbers and matrices.
Measures = dict[str, float | Tensor]
# By the images that are looked at, the term and the measure.
Values = Mapping[str, Mapping[str, Mapping[str, float | Tensor]]]


class DynamicsRow(NamedTuple):
    """One value.

    Args:
        step: Finished epochs or iterations.
        images: Which were looked at: ``'train'`` or ``'val'``, or what a loop of one's own says.
        term: Of the distillation.
        measure: Of :func:`mmkd.dynamics.term_dynamics`.
        value: Finite.
    """

    step: int
    images: str
    term: str
    measure: str
    value: float

    @property
    def name(self) -> str:
        """By which it is logged."""
        return logged_name(self.images, self.term, self.measure)


def logged_name(images: str, term: str, measure: str) -> str:
    """``dynamics/<term>/<measure>``; ``dynamics/<term>/val_<measure>`` of images other than those
    of the training."""
    prefix = "" if images == "train" else f"{images}_"
    return f"dynamics/{term}/{prefix}{measure}"


class DynamicsMatrix(NamedTuple):
    """One matrix, of the last record.

    Args:
        images, term, measure: As of a :class:`DynamicsRow`.
        matrix: ``[C_x, C_y]``.
    """

    images: str
    term: str
    measure: str
    matrix: np.ndarray


class DynamicsFile:
    """A file that grows with a training.

    Args:
        path: Written anew with each step; its folder exists.
        done: Steps of a training that is resumed, of which the file holds the values; 0 where one
            begins, which replaces what was there.

    Raises:
        InputError: Another file has that name, or that of the matrices beside it.
    """

    def __init__(self, path: str | Path, done: int = 0) -> None:
        self.path = Path(path)
        if self.path.is_file() and not _is_ours(self.path):
            raise InputError(f"{path}: it is there already, and is no file of recorded dynamics")
        if not done:
            read_matrices(self.path)
        found = read_dynamics(self.path) if done and self.path.is_file() else ()
        self._rows = [row for row in found if row.step <= done]
        if not done:
            self.path.unlink(missing_ok=True)
            _beside(self.path).unlink(missing_ok=True)

    def add(self, step: int, values: Values) -> list[DynamicsRow]:
        """Writes the values of a step, in the place of what is there of it or of later ones.

        Args:
            step: Finished epochs or iterations.
            values: By images, term and measure.
        """
        new = [
            DynamicsRow(step, images, term, measure, value)
            for images, terms in values.items()
            for term, measures in terms.items()
            for measure, value in measures.items()
            if not isinstance(value, Tensor)
        ]
        self._rows = [*(row for row in self._rows if row.step < step), *new]
        stream = io.StringIO()
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(DynamicsRow._fields)
        rows.writerows((*row[:4], repr(row.value)) for row in self._rows)
        write_text(self.path, stream.getvalue())
        self._write_matrices(values)
        return new

    def _write_matrices(self, values: Values) -> None:
        found = [
            ((images, term, measure), value.float().cpu().numpy())
            for images, terms in values.items()
            for term, measures in terms.items()
            for measure, value in measures.items()
            if isinstance(value, Tensor)
        ]
        if not found:
            return
        names = np.array([name for name, _ in found])
        arrays: dict[str, Any] = {str(index): array for index, (_, array) in enumerate(found)}
        with written_whole(_beside(self.path)) as unfinished, unfinished.open("wb") as stream:
            np.savez_compressed(stream, names=names, **arrays)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.stem}_matrices.npz")


def _is_ours(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace") as stream:
        return stream.readline().strip() in ("", ",".join(DynamicsRow._fields))


def read_dynamics(path: Path) -> Iterator[DynamicsRow]:
    """The rows of a file, without those that cannot be read."""
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.reader(stream):
            try:
                step, images, term, measure, value = row
                yield DynamicsRow(int(step), images, term, measure, float(value))
            except ValueError:  # The head, or a line that was cut.
                continue


def read_matrices(path: Path) -> list[DynamicsMatrix]:
    """The matrices beside a ``dynamics.csv``; none where nothing of the kind was recorded.

    Args:
        path: Of the CSV file.

    Raises:
        InputError: The file beside it is damaged.
    """
    file = _beside(path)
    if not file.is_file():
        return []
    try:
        with np.load(file, allow_pickle=False) as found:
            return [
                DynamicsMatrix(str(images), str(term), str(measure), found[str(index)])
                for index, (images, term, measure) in enumerate(found["names"])
            ]
    except Exception as error:  # A damaged archive fails in any way.
        raise InputError(
            f"{file}: expected matrices that a recorder wrote, found something else, or a damaged "
            f"file ({type(error).__name__}): remove or rename it"
        ) from error
