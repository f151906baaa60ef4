from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmkd.terms import Schedule, Term, parse_terms

# Schedules


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        # Two iterations an epoch: iterations 0 to 7 are the epochs 0, 0.5, ... 3.5.
        (Schedule(), [1, 1, 1, 1, 1, 1, 1, 1]),
        (Schedule(begin=1), [0, 0, 1, 1, 1, 1, 1, 1]),
        (Schedule(end=2), [1, 1, 1, 1, 0, 0, 0, 0]),
        (Schedule(begin=0.5, end=1.5), [0, 1, 1, 0, 0, 0, 0, 0]),
        (Schedule(ramp=2), [0, 0.25, 0.5, 0.75, 1, 1, 1, 1]),
        (Schedule(begin=1, ramp=1, end=3), [0, 0, 0, 0.5, 1, 1, 0, 0]),
        (Schedule(begin=3, by_epoch=False), [0, 0, 0, 1, 1, 1, 1, 1]),
        (Schedule(begin=1, end=6, ramp=4, by_epoch=False), [0, 0, 0.25, 0.5, 0.75, 1, 0, 0]),
        (Schedule(ramp=4, end=2, by_epoch=False), [0, 0.25, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_factor_by_hand(schedule: Schedule, factors: list[float]) -> None:
    assert [schedule.factor(i, iterations_per_epoch=2) for i in range(8)] == factors


@given(
    begin=st.integers(0, 20),
    length=st.integers(1, 20),
    ramp=st.integers(0, 20),
    per=st.integers(1, 9),
)
def test_factor_properties(begin: int, length: int, ramp: int, per: int) -> None:
    by_epoch = Schedule(begin, begin + length, ramp)
    by_iteration = Schedule(begin * per, (begin + length) * per, ramp * per, by_epoch=False)
    factors = [by_epoch.factor(i, per) for i in range((begin + length + 1) * per)]
    assert factors == pytest.approx([by_iteration.factor(i, per) for i in range(len(factors))])
    assert not any(factors[: begin * per])
    assert not any(factors[-per:])
    active = factors[begin * per : -per]
    assert active == sorted(active)
    assert all(0 <= factor <= 1 for factor in active)


@pytest.mark.parametrize("settings", [dict(begin=-1), dict(ramp=-0.5)])
def test_schedule_refuses_negative_times(settings: dict) -> None:
    with pytest.raises(ValueError, match="begin and ramp must be 0 or more, got Schedule"):
        Schedule(**settings)


@pytest.mark.parametrize("settings", [dict(end=0), dict(begin=2, end=2), dict(begin=3, end=1)])
def test_schedule_refuses_an_end_that_is_not_after_the_begin(settings: dict) -> None:
    with pytest.raises(ValueError, match="end must come after begin, got Schedule"):
        Schedule(**settings)


# Parsing


def test_the_default_term() -> None:
    (term,) = parse_terms(None, ["teacher"])
    assert term == Term(name="backbone", source="teacher")
    assert (term.student, term.teacher) == ("backbone", "backbone")
    assert (term.student_level, term.teacher_level) == (-1, -1)
    assert term.schedule == Schedule()
    assert (term.student_classifier, term.teacher_classifier) == (None, None)
    assert term.parts == {}
    assert term.key == "terms.backbone"


def test_the_default_is_one_term_per_teacher() -> None:
    terms = parse_terms(None, ["large", "small"])
    assert [(term.name, term.source) for term in terms] == [("large", "large"), ("small", "small")]


def test_a_term_in_full() -> None:
    parts = dict(
        projector=dict(type="mmkd.MLPProjector"),
        normalizer=dict(type="mmkd.L2Normalizer"),
        loss=dict(type="mmkd.L2Loss"),
        view="global",
        weight=0.5,
        student_channels=8,
        teacher_channels=16,
        student_extra_tokens=2,
        teacher_extra_tokens=1,
    )
    settings = dict(
        source="b",
        student="neck",
        teacher="backbone.layer4",
        student_level=0,
        teacher_level="p4",
        student_classifier="head.fc",
        teacher_classifier="head.classifier",
        schedule=dict(begin=1, end=5, ramp=2, by_epoch=False),
        **parts,
    )
    (term,) = parse_terms(dict(neck=settings), ["a", "b"])
    assert term == Term(
        name="neck",
        source="b",
        student="neck",
        teacher="backbone.layer4",
        student_level=0,
        teacher_level="p4",
        student_classifier="head.fc",
        teacher_classifier="head.classifier",
        schedule=Schedule(1, 5, 2, by_epoch=False),
        parts=parts,
    )


def test_a_level_serves_both_sides() -> None:
    (term,) = parse_terms(dict(stage=dict(level=1)), ["t"])
    assert (term.name, term.student_level, term.teacher_level) == ("stage", 1, 1)
    (term,) = parse_terms(dict(stage=dict(level=1, teacher_level=2)), ["t"])
    assert (term.student_level, term.teacher_level) == (1, 2)


@pytest.mark.parametrize("levels", [[0, 2, "p5"], (0, 2, "p5")])
def test_a_list_of_levels_makes_one_term_each(levels: object) -> None:
    terms = parse_terms(dict(fpn=dict(level=levels, weight=2.0)), ["t"])
    assert [term.name for term in terms] == ["fpn_0", "fpn_2", "fpn_p5"]
    assert [term.student_level for term in terms] == [0, 2, "p5"]
    assert [term.teacher_level for term in terms] == [0, 2, "p5"]
    assert all(term.parts == dict(weight=2.0) for term in terms)


def test_a_list_of_one_level_keeps_the_name() -> None:
    (term,) = parse_terms(dict(fpn=dict(level=[3])), ["t"])
    assert (term.name, term.student_level) == ("fpn", 3)


def test_terms_of_several_teachers() -> None:
    terms = parse_terms(dict(x=dict(source="b"), y=dict(source="a", level=[0, 1])), ["a", "b"])
    assert [(term.name, term.source) for term in terms] == [("x", "b"), ("y_0", "a"), ("y_1", "a")]


@pytest.mark.parametrize(
    ("terms", "error", "message"),
    [
        ([], TypeError, r"terms must be a dict of name=dict\(...\), got \[\]"),
        ({}, ValueError, "terms is empty: leave it out for the default term"),
        (dict(x=3), TypeError, "terms.x must be a dict, got 3"),
        (
            dict(x=dict(wieght=1)),
            ValueError,
            r"terms.x has no key 'wieght' \(did you mean 'weight'",
        ),
        (
            dict(x=dict(teacher_clasifier="head.fc")),
            ValueError,
            r"terms.x has no key 'teacher_clasifier' \(did you mean 'teacher_classifier'\?\)",
        ),
        (dict(x=dict(zzz=1)), ValueError, "terms.x has no key 'zzz'; it takes source, student"),
        (
            dict(x=dict(schedule=dict(begn=1))),
            ValueError,
            r"terms.x.schedule has no key 'begn' \(did you mean 'begin'\?\)",
        ),
        (dict(x=dict(schedule=dict(begin=-1))), ValueError, "begin and ramp must be 0 or more"),
        (dict(x=dict(level=[])), ValueError, "terms.x.level is empty"),
        (dict(x=dict(level=[1, 1])), ValueError, "two terms are called 'x_1'"),
        (dict(x=dict(level=[0, 1]), x_0={}), ValueError, "two terms are called 'x_0'"),
        (dict(x=dict(source="c")), ValueError, r"terms.x.source .* one of \['t'\], got 'c'"),
    ],
)
def test_mistakes(terms: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_terms(terms, ["t"])


def test_several_teachers_need_a_source() -> None:
    with pytest.raises(ValueError, match=r"one of \['a', 'b'\], got None"):
        parse_terms(dict(x={}), ["a", "b"])
