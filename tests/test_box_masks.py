"""Boxes on a feature map's grid, against areas in pixels counted cell by cell."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmkd.box_masks import background_scales, box_cells, cells_near_anchors, object_scales

SIZE, GRID = (24, 32), (3, 4)  # cells of 8 pixels
places = st.floats(-20, 60, width=32)
extents = st.floats(0, 40, width=32)


def cells(*box: float) -> list[int]:
    return box_cells(torch.tensor([box]), GRID, SIZE)[0].tolist()


def scales(*boxes: tuple[float, ...]) -> torch.Tensor:
    return object_scales([torch.tensor(boxes).reshape(-1, 4)], GRID, SIZE)[0]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0, 0, 8, 8), [0, 0, 1, 1]),
        ((0, 0, 8.1, 8), [0, 0, 2, 1]),
        ((9, 17, 10, 18), [1, 2, 2, 3]),  # within one cell
        ((8, 8, 8, 8), [1, 1, 2, 2]),  # without an area
        ((-5, -5, 40, 40), [0, 0, 4, 3]),
    ],
)
def test_cells_by_hand(box: tuple[float, ...], expected: list[int]) -> None:
    assert cells(*box) == expected


@pytest.mark.parametrize("box", [(40, 0, 50, 8), (-9, 0, 0, 8), (0, 24, 8, 30), (0, -9, 8, -1)])
def test_a_box_outside_the_image_has_no_cell(box: tuple[float, ...]) -> None:
    assert scales(box).sum() == 0


@given(x=places, y=places, width=extents, height=extents)
def test_every_cell_that_a_box_shares_an_area_with(
    x: float, y: float, width: float, height: float
) -> None:
    found = scales((x, y, x + width, y + height)) > 0
    for row in range(GRID[0]):
        for column in range(GRID[1]):
            across = min(x + width, 8 * column + 8) - max(x, 8 * column)
            down = min(y + height, 8 * row + 8) - max(y, 8 * row)
            # Rounding may put an edge on either side of a line of the grid.
            if min(abs(across), abs(down)) > 1e-4:
                assert bool(found[row, column]) == (across > 0 and down > 0)


def test_the_smallest_box_on_a_cell_counts() -> None:
    found = scales((0, 0, 16, 16), (8, 8, 24, 16))
    expected = torch.zeros(GRID)
    expected[:2, :2] = 1 / 4
    expected[1, 1:3] = 1 / 2
    torch.testing.assert_close(found, expected)


def test_the_background_shares_one() -> None:
    both = object_scales([torch.tensor([[0.0, 0, 16, 16]]), torch.zeros(0, 4)], GRID, SIZE)
    found = background_scales(both)
    assert found[0].unique().tolist() == pytest.approx([0, 1 / 8])
    assert found[1].unique().tolist() == pytest.approx([1 / 12])
    everywhere = object_scales([torch.tensor([[0.0, 0, 32, 24]])], GRID, SIZE)
    assert background_scales(everywhere).abs().sum() == 0


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_flip_flips_the_mask(mirrored: bool) -> None:
    box = (3.0, 1.0, 14.0, 9.0)
    flipped = (32 - box[2], box[1], 32 - box[0], box[3])
    assert torch.equal(scales(flipped), scales(box).flip(1))


def test_padding_moves_nothing() -> None:
    """The grid covers the padded batch, so that a box's cells stay where they are."""
    corners = [torch.tensor([[9.0, 9, 20, 15]])]
    padded = object_scales(corners, (6, 8), (48, 64))
    assert torch.equal(padded[0, :3, :4], scales((9.0, 9, 20, 15)))
    assert padded.sum() == pytest.approx(1)


def test_cells_near_anchors_by_hand() -> None:
    # One anchor of 8 pixels a cell, a box of 8 x 8 half a cell to the right of the first one.
    near = cells_near_anchors(
        [torch.tensor([[4.0, 0, 12, 8]]), torch.zeros(0, 4)], GRID, SIZE, scales=(1,), ratios=(1,)
    )
    assert near[0].nonzero().tolist() == [[0, 0], [0, 1]]
    assert near[1].sum() == 0


@pytest.mark.parametrize("box", [(40, 0, 50, 8), (-9, 0, 0, 8), (0, 24, 8, 30), (0, -9, 8, -1)])
def test_a_box_outside_the_image_is_near_no_cell(box: tuple[float, ...]) -> None:
    """Though the anchors at the border reach beyond it, and overlap it."""
    inside = (4.0, 0, 12, 8)
    near, alone = (
        cells_near_anchors([torch.tensor(boxes)], GRID, SIZE) for boxes in ([inside, box], [inside])
    )
    assert torch.equal(near, alone)
    assert not cells_near_anchors([torch.tensor([box])], GRID, SIZE).any()


def test_a_box_of_one_cell_is_near_that_cell() -> None:
    near = cells_near_anchors([torch.tensor([[8.0, 16, 16, 24]])], GRID, SIZE, scales=(1,))
    assert near[0].nonzero().tolist() == [[2, 1]]


@given(
    x=st.floats(0, 24), y=st.floats(0, 16), width=st.floats(2, 30), height=st.floats(2, 20),
    threshold=st.floats(0.1, 0.9),
)  # fmt: skip
def test_cells_near_anchors_by_loops(
    x: float, y: float, width: float, height: float, threshold: float
) -> None:
    overlaps = {}
    for row in range(GRID[0]):
        for column in range(GRID[1]):
            for scale in (1.0, 2.5):
                for ratio in (0.5, 2.0):
                    high, wide = 8 * scale * math.sqrt(ratio), 8 * scale / math.sqrt(ratio)
                    top, left = 8 * row + 4 - high / 2, 8 * column + 4 - wide / 2
                    down = max(0.0, min(y + height, top + high) - max(y, top))
                    across = max(0.0, min(x + width, left + wide) - max(x, left))
                    common = down * across
                    union = width * height + high * wide - common
                    overlaps[row, column, scale, ratio] = common / union
    limit = threshold * max(overlaps.values())
    found = cells_near_anchors(
        [torch.tensor([[x, y, x + width, y + height]])],
        GRID,
        SIZE,
        scales=(1.0, 2.5),
        ratios=(0.5, 2.0),
        threshold=threshold,
    )[0]
    for row in range(GRID[0]):
        for column in range(GRID[1]):
            own = [v for (r, c, *_), v in overlaps.items() if (r, c) == (row, column)]
            if all(abs(each - limit) > 1e-5 for each in own):
                assert bool(found[row, column]) == any(each > limit for each in own)
