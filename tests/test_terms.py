from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmkd.distiller import Distiller, FeatureDistiller
from mmkd.errors import InputError
from mmkd.features import Stride
from mmkd.registry import MODELS
from mmkd.terms import Schedule, Tap, Term, parse_terms


def levels_of(term: Term) -> tuple[list, list]:
    return [tap.level for tap in term.student], [tap.level for tap in term.teacher]


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
        # The halves of a cosine: (1 + cos(pi / 4)) / 2 and so on.
        (Schedule(end=3, decay=2), [1, 1, 1, 0.853553390593, 0.5, 0.146446609407, 0, 0]),
        (
            Schedule(end=4, decay=4, by_epoch=False),
            [1, 0.853553390593, 0.5, 0.146446609407] + 4 * [0],
        ),
    ],
)
def test_factor_by_hand(schedule: Schedule, factors: list[float]) -> None:
    found = [schedule.factor(i, iterations_per_epoch=2) for i in range(8)]
    assert found == pytest.approx(factors, abs=1e-9)


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
    with pytest.raises(ValueError, match="begin, ramp and decay must be 0 or more, got Schedule"):
        Schedule(**settings)


@pytest.mark.parametrize("drop", [0.0, 0.25, 0.8])
def test_teachers_are_dropped_at_random_but_alike(drop: float) -> None:
    schedule = Schedule(drop=drop)
    drawn = {
        source: [schedule.is_dropped(i, source, 7) for i in range(2000)] for source in ("a", "b")
    }
    for each in drawn.values():
        # Five standard errors.
        assert abs(sum(each) / 2000 - drop) <= 5 * (drop * (1 - drop) / 2000) ** 0.5
    assert drawn["a"] == [Schedule(drop=drop).is_dropped(i, "a", 7) for i in range(2000)]
    if drop:
        assert drawn["a"] != drawn["b"]
        assert drawn["a"] != [schedule.is_dropped(i, "a", 8) for i in range(2000)]


@pytest.mark.parametrize("settings", [dict(end=0), dict(begin=2, end=2), dict(begin=3, end=1)])
def test_schedule_refuses_an_end_that_is_not_after_the_begin(settings: dict) -> None:
    with pytest.raises(ValueError, match="end must come after begin, got Schedule"):
        Schedule(**settings)


@pytest.mark.parametrize("settings", [dict(decay=1), dict(begin=1, ramp=2, end=5, decay=3)])
def test_decay_lies_between_the_rise_and_an_end(settings: dict) -> None:
    with pytest.raises(ValueError, match="decay must lie between the rise and an end, got Sch"):
        Schedule(**settings)


@pytest.mark.parametrize("drop", [-0.1, 1.0])
def test_drop_is_a_probability_below_1(drop: float) -> None:
    with pytest.raises(ValueError, match="drop must be 0 or more and below 1, got Schedule"):
        Schedule(drop=drop)


def test_lists_of_modules_are_a_term_a_pair_or_one_of_all() -> None:
    modules = dict(student=["a", "b"], teacher=["c", "d"])
    terms = parse_terms(dict(x=dict(modules, loss=dict(type="mmkd.ATLoss"))), ["teacher"])
    assert [(t.name, t.student, t.teacher) for t in terms] == [
        ("x_0", (Tap("a"),), (Tap("c"),)),
        ("x_1", (Tap("b"),), (Tap("d"),)),
    ]
    for joint in (dict(loss=dict(type="mmkd.FSPLoss")), dict(type="mmkd.AFDDistiller")):
        [term] = parse_terms(dict(x={**modules, **joint}), ["teacher"])
        assert term.takes_several and term.student == (Tap("a"), Tap("b"))
        assert term.teacher == (Tap("c"), Tap("d"))


def test_levels_that_are_not_compared_in_pairs() -> None:
    afd = dict(type="mmkd.AFDDistiller")
    [term] = parse_terms(dict(x=dict(afd, student=["a"], teacher=["c", "d"])), ["teacher"])
    assert (term.student, term.teacher) == ((Tap("a"),), (Tap("c"), Tap("d")))
    [term] = parse_terms(dict(x=dict(afd, levels=[2, 3], teacher_levels=[0])), ["teacher"])
    assert (term.student, term.teacher) == (
        (Tap("backbone", 2), Tap("backbone", 3)),
        (Tap("backbone", 0),),
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(student=["a"]), r"lists of modules of both .*, got \['a'\] and 'backbone'"),
        (dict(student=["a", "b"], teacher=["c"]), "compared in pairs"),
        (dict(student=[], teacher=[]), "one module or more each, got"),
        (dict(type="mmkd.AFDDistiller", student=["a"]), "lists of modules of both"),
        (dict(student=["a"], teacher=["c"], stride=8), "last output is taken: leave stride out"),
    ],
)
def test_lists_of_modules_that_do_not_fit(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"terms.x: .*{message}"):
        parse_terms(dict(x=settings), ["teacher"])


# Parsing


def test_the_default_term() -> None:
    (term,) = parse_terms(None, ["teacher"])
    assert (term.name, term.source) == ("backbone", "teacher")
    assert term.student == term.teacher == (Tap("backbone", Stride(None)),)
    assert term.type == "mmkd.FeatureDistiller"
    assert term.schedule == Schedule()
    assert (term.student_classifier, term.teacher_classifier) == (None, None)
    assert term.parts == dict(weight=dict(share=0.5))
    assert term.key == "terms.backbone"


def test_the_default_is_one_term_per_teacher() -> None:
    terms = parse_terms(None, ["large", "small"])
    assert [(term.name, term.source) for term in terms] == [("large", "large"), ("small", "small")]
    assert [term.parts["weight"] for term in terms] == [dict(share=0.25)] * 2


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
        student=(Tap("neck", 0),),
        teacher=(Tap("backbone.layer4", "p4"),),
        student_classifier="head.fc",
        teacher_classifier="head.classifier",
        schedule=Schedule(1, 5, 2, by_epoch=False),
        parts=parts,
    )


def test_a_level_serves_both_sides() -> None:
    (term,) = parse_terms(dict(stage=dict(level=1)), ["t"])
    assert (term.name, *levels_of(term)) == ("stage", [1], [1])
    (term,) = parse_terms(dict(stage=dict(level=1, teacher_level=2)), ["t"])
    assert levels_of(term) == ([1], [2])


@pytest.mark.parametrize("levels", [[0, 2, "p5"], (0, 2, "p5")])
def test_a_list_of_levels_makes_one_term_each(levels: object) -> None:
    terms = parse_terms(dict(fpn=dict(level=levels, weight=2.0)), ["t"])
    assert [term.name for term in terms] == ["fpn_0", "fpn_2", "fpn_p5"]
    assert [levels_of(term) for term in terms] == [([each], [each]) for each in (0, 2, "p5")]
    assert not any(term.takes_several for term in terms)
    assert all(term.parts == dict(weight=2.0) for term in terms)


def test_a_list_of_one_level_keeps_the_name() -> None:
    (term,) = parse_terms(dict(fpn=dict(level=[3])), ["t"])
    assert (term.name, *levels_of(term)) == ("fpn", [3], [3])


def test_levels_make_one_term_of_all() -> None:
    (term,) = parse_terms(dict(fpn=dict(levels=[0, 2], student="neck", weight=2.0)), ["t"])
    assert (term.name, term.takes_several, term.parts) == ("fpn", True, dict(weight=2.0))
    assert term.student == (Tap("neck", 0), Tap("neck", 2))
    assert term.teacher == (Tap("backbone", 0), Tap("backbone", 2))
    (term,) = parse_terms(dict(fpn=dict(levels=[0, 1], teacher_levels=["a", "b"])), ["t"])
    assert levels_of(term) == ([0, 1], ["a", "b"])
    (term,) = parse_terms(dict(fpn=dict(levels=[1])), ["t"])
    assert term.takes_several and levels_of(term) == ([1], [1])


@MODELS.register_module()
class OwnDistiller(Distiller):
    def __init__(self, student_channels: int, width: int = 3, weight: float = 1.0, seed: int = 0):
        super().__init__(weight)


def test_a_term_of_its_own_type_takes_that_type_s_settings() -> None:
    settings = dict(type="OwnDistiller", width=5, level=2, weight=0.5)
    (term,) = parse_terms(dict(own=settings), ["t"], "Owner")
    assert term.type == "OwnDistiller"
    assert term.parts == dict(width=5, weight=0.5)
    with pytest.raises(InputError, match=r"Owner terms\.own has no key 'loss'") as error:
        parse_terms(dict(own=dict(settings, loss=dict(type="mmkd.L2Loss"))), ["t"], "Owner")
    assert error.value.setting == "Owner terms.own"
    # What the training gives cannot be set.
    with pytest.raises(ValueError, match="has no key 'seed'"):
        parse_terms(dict(own=dict(settings, seed=1)), ["t"])


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
        (
            dict(x=dict(zzz=1)),
            ValueError,
            "terms.x has no key 'zzz'; it takes type, source, student",
        ),
        (
            dict(x=dict(schedule=dict(begn=1))),
            ValueError,
            r"terms.x.schedule has no key 'begn' \(did you mean 'begin'\?\)",
        ),
        (
            dict(x=dict(schedule=dict(begin=-1))),
            ValueError,
            "begin, ramp and decay must be 0 or more",
        ),
        (dict(x=dict(level=[])), ValueError, "terms.x.level is empty"),
        (dict(x=dict(levels=[])), ValueError, r"terms.x.levels must be a list of levels, got \[\]"),
        (dict(x=dict(levels=2)), ValueError, "terms.x.levels must be a list of levels, got 2"),
        (dict(x=dict(levels=[0, 1], level=0)), ValueError, "terms.x: level .* exclude each other"),
        (
            dict(x=dict(levels=[0, 1], teacher_levels=[0])),
            ValueError,
            r"compared in pairs, got \[0, 1\] and \[0\]",
        ),
        (dict(x=dict(type="mmkd.Nothing")), ValueError, "terms.x.type: no class is registered"),
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


@MODELS.register_module()
class WithTemperature(FeatureDistiller):
    def __init__(self, *channels: int, temperature: float = 1.0, **settings: Any) -> None:
        super().__init__(*channels, **settings)


def test_a_type_that_passes_settings_on_takes_those_of_its_base() -> None:
    settings = dict(type="WithTemperature", temperature=2.0, weight=3.0, view="global")
    (term,) = parse_terms(dict(own=settings), ["t"])
    assert term.parts == dict(temperature=2.0, weight=3.0, view="global")
    with pytest.raises(ValueError, match="has no key 'wieght'"):
        parse_terms(dict(own=dict(settings, wieght=1)), ["t"])
