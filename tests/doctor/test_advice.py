"""What is said of a teacher, by what is known of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from helpers.examinations import examination
from mmkd.doctor import Examination, advise
from mmkd.doctor.file import as_json
from mmkd.doctor.level_map import LevelMap


def of_teacher(**changes: Any) -> Examination:
    """With a share that gives no cause for advice."""
    found = examination(share=0.5)
    known = dict(accuracy=None, loss=None, images=64)
    return replace(found, teachers=(replace(found.teachers[0], **{**known, **changes}),))


@pytest.mark.parametrize(
    ("changes", "level", "text"),
    [
        # Guessing comes to 10% of 64 images, with a deviation of 3.75.
        (dict(accuracy=17.0, chance=10.0), "error", "it scores 17.0% on 64 validation images"),
        (dict(accuracy=0.5), "error", "it is not trained, or on other classes"),
        (dict(unchecked="it tells 20 classes apart"), "warning", "is not known: it tells 20"),
        (dict(loss=math.nan), "error", "its own loss on a training batch is nan"),
        (dict(loss=math.inf, otherwise=dict(a=0.1)), "error", "training batch is inf"),
    ],
)
def test_a_teacher_that_knows_nothing(changes: dict, level: str, text: str) -> None:
    [advice] = advise(of_teacher(**changes))
    assert (advice.level, advice.about) == (level, "teacher") and text in advice.text


@pytest.mark.parametrize("changes", [dict(accuracy=18.0, chance=10.0), dict(accuracy=1.5), {}])
def test_one_of_which_nothing_bad_is_known(changes: dict) -> None:
    assert advise(of_teacher(**changes)) == []


def test_json_has_no_numbers_that_are_none() -> None:
    values = json.loads(as_json(of_teacher(loss=math.nan)), parse_constant=pytest.fail)
    assert values["teachers"][0]["loss"] is None


def test_levels_are_proposed_by_what_the_teacher_knows_more() -> None:
    found = LevelMap(
        student=("a[0]", "a[1]", "a[2]", "a[3]"),
        teacher=("b[0]", "b[1]"),
        cka=((0.1, 0.2),) * 4,
        student_probe=(0.25, 0.5, None, 0.25),
        teacher_probe=(0.5, 0.75),
        own=(0, 0, 1, 1),
    )
    assert found.proposals == [
        dict(student="a[3]", teacher="b[1]", lead=0.5),
        dict(student="a[0]", teacher="b[0]", lead=0.25),
    ]
