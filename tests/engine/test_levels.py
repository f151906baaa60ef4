"""Levels by their stride, and a term of every stride."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmkd.engine.levels import Levels, expanded, located
from mmkd.engine.plain import distill
from mmkd.errors import InputError
from mmkd.features import Stride, levels_by_stride
from mmkd.terms import Tap, Term, parse_terms

FORMAT = dict(mean=[0.0, 0, 0], std=[1.0, 1, 1], order="rgb")


class Pyramid(nn.Module):
    """A backbone of maps of several strides."""

    def __init__(self, strides: Sequence[int], width: int = 4) -> None:
        super().__init__()
        self.backbone = Backbone(strides, width)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.backbone(images)


class Backbone(nn.Module):
    def __init__(self, strides: Sequence[int], width: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(nn.Conv2d(3, width, s, s) for s in strides)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(stage(images) for stage in self.stages)


def levels(strides: Sequence[int], size: int = 64) -> Levels:
    model = Pyramid(strides)
    return Levels(model, lambda: model(torch.zeros(1, 3, size, size)), (size, size))


def term(**settings: Any) -> Term:
    [found] = parse_terms(dict(t=settings), ["teacher"])
    return found


@pytest.mark.parametrize(
    ("shapes", "size", "expected"),
    [
        # Borders that take a row more, or lose one.
        ([(100, 167), (50, 84), (25, 42)], (800, 1333), {8: 0, 16: 1, 32: 2}),
        ([(16, 16), (8, 8)], (225, 225), {14: 0, 28: 1}),
        # Of one stride the last, and from fine to coarse.
        ([(2, 2), (8, 8), (8, 8)], (64, 64), {8: 2, 32: 0}),
    ],
)
def test_strides_of_maps(shapes: list, size: tuple[int, int], expected: dict) -> None:
    output = tuple(torch.zeros(1, 2, *shape) for shape in shapes)
    assert levels_by_stride(output, size) == expected
    keys = {f"p{i}": each for i, each in enumerate(output)}
    assert levels_by_stride(keys, size) == {s: f"p{i}" for s, i in expected.items()}
    assert list(levels_by_stride(output, size)) == sorted(expected)


def test_what_is_no_map_has_no_stride() -> None:
    tokens, vector = torch.zeros(1, 16, 4), torch.zeros(1, 4)
    assert levels_by_stride((tokens, vector, None), (64, 64)) == {}
    assert levels_by_stride(torch.zeros(1, 4, 2, 2), (64, 64)) == {32: -1}


def test_a_stride_is_found_and_another_named() -> None:
    found = levels([4, 8, 16])
    assert found.find(Tap("backbone", Stride(8))) == Tap("backbone", 1)
    with pytest.raises(ValueError, match=r"stride 32 was asked of 'backbone', which has strides 4"):
        found.find(Tap("backbone", Stride(32)))


@pytest.mark.parametrize(
    ("asked", "strides", "level"),
    [(8, [4, 16], 1), (32, [8, 16], 1), (4, [8, 16], 0), (14, [14], 0)],
)
def test_the_nearest_stride(asked: int, strides: list[int], level: int) -> None:
    output = {"backbone": tuple(torch.zeros(1, 1, 448 // s, 448 // s) for s in strides)}
    tap = Tap("backbone", Stride(asked, is_nearest=True))
    assert located(tap, output, (448, 448)) == Tap("backbone", level)


def test_of_tokens_the_last_output_is_the_nearest() -> None:
    output = {"vit": (torch.zeros(1, 16, 4), torch.zeros(1, 16, 4))}
    assert located(Tap("vit", Stride(8, is_nearest=True)), output, (64, 64)) == Tap("vit", -1)


@pytest.mark.parametrize(
    ("strides", "expected"),
    [
        ([4, 8, 16, 32], {"t_s8": 1, "t_s16": 2, "t_s32": 3}),
        ([2, 4], {"t_s2": 0, "t_s4": 1}),
        ([4, 16], {"t": 1}),
        ([8], {"t": 0}),
    ],
)
def test_every_stride_makes_a_term_each(strides: list[int], expected: dict) -> None:
    found = expanded(term(stride="all"), levels(strides))
    assert {each.name: each.student[0].level for each in found} == expected
    for each in found:
        assert each.teacher[0].level.is_nearest  # type: ignore[union-attr]


@pytest.mark.parametrize(("loss", "left"), [("CWDLoss", [8, 32]), ("MSELoss", [8, 32, 64])])
def test_a_level_of_fewer_cells_than_a_loss_needs_is_left_out(loss: str, left: list[int]) -> None:
    """CWD of a single cell is 0 whatever lies there."""
    maps = term(stride="all", loss=dict(type=f"mmkd.{loss}"))
    found = expanded(maps, levels([8, 32, 64]))
    assert [each.name for each in found] == [f"t_s{stride}" for stride in left]


def test_another_term_stays_as_it_is() -> None:
    one = term(stride=8)
    assert expanded(one, levels([4, 8])) == [one]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(stride=8, level=1), "level and stride exclude each other"),
        (dict(stride=0), "t.stride must be a number of pixels, 1 or more, or 'all', got 0"),
        (dict(student_stride="8", teacher_level=1), "t.student_stride must be a number of pixels"),
        (dict(teacher_stride=8), "teacher_stride says nothing of the student: give student_stride"),
        (dict(student_stride=8, student_level=1), "student_level and student_stride exclude"),
        (dict(stride=[]), "t.stride is empty"),
        (dict(stride=8, strides=[8]), "stride .a term each. and strides"),
        (dict(strides=8), "t.strides must be a list of strides, got 8"),
        (dict(strides=[8], teacher_strides=[8, 16]), "are compared in pairs"),
    ],
)
def test_wrong_strides(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_terms(dict(t=settings), ["teacher"])


def test_the_sides_may_name_their_levels_differently() -> None:
    for settings in (dict(student_stride=8, teacher_level=1), dict(stride=8, teacher_level=1)):
        [one] = parse_terms(dict(t=settings), ["teacher"])
        assert (one.student[0].level, one.teacher[0].level) == (Stride(8), 1)
    several = parse_terms(dict(t=dict(level=[0, 1], teacher_stride=16)), ["teacher"])
    assert [(t.student[0].level, t.teacher[0].level) for t in several] == [
        (0, Stride(16)),
        (1, Stride(16)),
    ]


def test_a_list_of_strides_is_a_term_each() -> None:
    found = parse_terms(dict(t=dict(stride=[8, 16])), ["teacher"])
    assert [each.name for each in found] == ["t_s8", "t_s16"]
    [several] = parse_terms(dict(t=dict(strides=[8, 16])), ["teacher"])
    assert several.takes_several and several.student == several.teacher
    assert [tap.level for tap in several.student] == [Stride(8), Stride(16)]


def test_a_training_by_strides() -> None:
    """Which features were compared shows by the distance of a term: equal widths, no projector."""
    student, teacher = Pyramid([4, 8, 16]), Pyramid([8, 16, 32])
    parts = dict(
        projector=dict(type="mmkd.IdentityProjector"),
        normalizer=dict(type="mmkd.IdentityNormalizer"),
        loss=dict(type="mmkd.MSELoss"),
        stride=16,
    )
    images = torch.randn(2, 3, 64, 64)
    with distill(student, dict(module=teacher), dict(a=parts), images=FORMAT, probe_size=64) as of:
        loss = of.loss(images) if student(images) else None
    expected = (student(images)[2] - teacher(images)[1]).square().mean()
    assert torch.allclose(loss, expected)


def test_a_stride_that_the_teacher_lacks() -> None:
    with pytest.raises(InputError, match=r"terms.a.teacher.*stride 4 .* has strides 8, 16"):
        distill(Pyramid([4]), dict(module=Pyramid([8, 16])), dict(a=dict(stride=4)), images=FORMAT)
