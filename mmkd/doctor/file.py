"""``doctor.json``: an examination, kept in the folder of the run that it came before."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmkd.doctor.advice import advise
from mmkd.doctor.examination import Costs, Examination, TeacherFinding, TermFinding
from mmkd.doctor.wording import sentences, term_row
from mmkd.errors import InputError
from mmkd.input_files import read_text
from mmkd.output_files import check_output, write_text

__all__ = ["EXAMINATION", "as_json", "check_place", "read_examination", "write_examination"]

EXAMINATION = "doctor.json"


def as_json(found: Examination) -> str:
    """An examination with its advice."""
    advice = [each._asdict() for each in advise(found)]
    return json.dumps(_finite({**asdict(found), "advice": advice}), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
    """JSON knows no NaN and no infinity: none."""
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_examination(folder: Path, found: Examination) -> Path:
    """Writes ``doctor.json``, which replaces one that is there.

    Raises:
        InputError: Another file has that name.
        OSError: It cannot be written.
    """
    check_place(folder)
    file = folder / EXAMINATION
    write_text(file, as_json(found) + "\n")
    return file


def check_place(folder: Path) -> None:
    """Makes sure that an examination can be kept in a folder.

    Raises:
        InputError: It cannot, or another file has its name.
    """
    check_output(folder / EXAMINATION)
    try:
        read_examination(folder)
    except InputError as error:
        raise InputError(
            f"{folder / EXAMINATION} is there already, and is no examination: rename it"
        ) from error


def read_examination(folder: Path) -> Examination | None:
    """What lies in a folder; None where nothing does. Its advice is today's.

    Raises:
        InputError: The file is something else, or too large.
    """
    file = folder / EXAMINATION
    if not file.is_file():
        return None
    try:
        found = _examination(json.loads(read_text(file)))
        if not found.terms:
            raise ValueError("it tells of no terms")
        # Whatever can be said of it can be said.
        advise(found)
        list(sentences(found))
        for term in found.terms:
            term_row(term)
    except Exception as error:  # Other values of any kind fail in any way.
        raise InputError(f"{EXAMINATION} cannot be read") from error
    return found


def _examination(values: Mapping[str, Any]) -> Examination:
    own = {key: value for key, value in values.items() if key != "advice"}
    own["terms"] = tuple(TermFinding(**_with_tuples(each)) for each in own["terms"])
    own["teachers"] = tuple(TeacherFinding(**each) for each in own["teachers"])
    own |= {key: Costs(**own[key]) for key in ("plain", "distilled")}
    return Examination(**own)


def _with_tuples(term: Mapping[str, Any]) -> dict[str, Any]:
    shapes = {key: tuple(map(tuple, term[key])) for key in ("student_shapes", "teacher_shapes")}
    size = term["size"]
    return {**term, **shapes, "size": None if size is None else tuple(size)}
