"""An examination that is kept is the same when it is read, or is said to be none."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from helpers.examinations import examination
from mmkd.doctor import advise
from mmkd.doctor.file import read_examination, write_examination
from mmkd.doctor.wording import sentences, term_row
from mmkd.errors import InputError


def test_what_is_kept_is_read(tmp_path: Path) -> None:
    found = examination()
    file = write_examination(tmp_path, found)
    assert file.name == "doctor.json"
    assert read_examination(tmp_path) == found
    assert json.loads(file.read_text())["advice"][0]["about"] == "terms.neck.weight"
    assert [each.about for each in advise(found)] == ["terms.neck.weight"]
    # Kept anew, it is replaced.
    write_examination(tmp_path, examination(share=0.5))
    again = read_examination(tmp_path)
    assert again is not None and advise(again) == []


def test_nothing_kept(tmp_path: Path) -> None:
    assert read_examination(tmp_path) is None


def test_in_words() -> None:
    found = examination()
    assert term_row(found.terms[0]) == [
        "neck", "neck.0 4x8x16x16 at 8", "neck.0 4x16x16x16 at 8",
        "1024", "0.123", "2", "98%", "-0.05",
    ]  # fmt: skip
    teacher, step = sentences(found)
    assert teacher.endswith("; its own loss here 0.5 (the student's before training 3.2); "
                            "45.6% on 16 validation images")  # fmt: skip
    assert step == (
        "A step: 100 ms alone, 130 ms, 2.0 GiB distilled (1.30 times, 20% of it the teacher's). "
        "Over 12,000 iterations: +0.1 hours."
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda values: [],
        lambda values: {},
        lambda values: values | dict(terms=None),
        lambda values: values | dict(terms=[]),
        lambda values: values | dict(terms=[dict(name="a")]),
        lambda values: values | dict(plain=dict(seconds="fast", peak_bytes=None)),
        lambda values: values | dict(plain=dict(seconds=0, peak_bytes=None)),
        lambda values: values | dict(iterations="many"),
        lambda values: values | dict(more=1),
        lambda values: values | dict(terms=[values["terms"][0] | dict(share="all")]),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, change: Any) -> None:
    values = change(json.loads(json.dumps(asdict(examination()))))
    (tmp_path / "doctor.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"doctor\.json cannot be read"):
        read_examination(tmp_path)
    with pytest.raises(InputError, match="is there already, and is no examination: rename it"):
        write_examination(tmp_path, examination())
