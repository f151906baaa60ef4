"""The grid of a network's tokens, told by the images' size."""

from __future__ import annotations

import itertools

import pytest
import torch

from mmkd.distiller import FeatureDistiller
from mmkd.token_grids import token_grid

SIDES = (64, 96, 100, 224, 225, 288, 333, 384, 512, 608, 720, 800, 1080, 1280, 1333)
PATCHES = (4, 7, 8, 12, 14, 16, 28, 32)


def test_every_patch_of_every_size() -> None:
    for height, width in itertools.product(SIDES, repeat=2):
        for patch in PATCHES:
            down = height // patch, width // patch
            up = -(-height // patch), -(-width // patch)
            for rows, columns in {down, up}:
                assert token_grid(rows * columns, (height, width)) == (rows, columns)


@pytest.mark.parametrize(("size", "grid"), [((720, 1280), (45, 80)), ((288, 512), (18, 32))])
def test_a_square_number_of_tokens_is_no_square_grid(
    size: tuple[int, int], grid: tuple[int, int]
) -> None:
    """The counts 3600 and 576, which are 60 x 60 and 24 x 24."""
    assert token_grid(grid[0] * grid[1], size) == grid
    assert token_grid(grid[0] * grid[1], size[::-1]) == grid[::-1]


@pytest.mark.parametrize(
    ("length", "size", "message"),
    [
        (197, (224, 224), "if the first 1 stand for no patch .*student_extra_tokens=1 or teacher"),
        (3605, (720, 1280), "if the first 5 stand for no patch"),
        (211, (224, 224), r"211 tokens of images of 224 x 224 pixels \(height x width\) form no"),
        (211, (224, 224), r"square patches: tap a module that returns \[N, C, H, W\], or use view"),
    ],
)
def test_tokens_without_a_grid(length: int, size: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        token_grid(length, size)


def test_no_number_of_tokens_has_two_grids() -> None:
    for height, width in itertools.product(range(4, 60), range(4, 90, 3)):
        grids: dict[int, set[tuple[int, int]]] = {}
        for patch in range(1, min(height, width) + 1):
            for grid in (
                (height // patch, width // patch),
                (-(-height // patch), -(-width // patch)),
            ):
                grids.setdefault(grid[0] * grid[1], set()).add(grid)
        assert all(len(each) == 1 for each in grids.values()), (height, width)


def test_tokens_of_any_grid_are_compared_as_the_map_they_are() -> None:
    """Beside a coarser map, and beside tokens of other patches."""
    generator = torch.Generator().manual_seed(0)
    for (height, width), patch, other in (
        ((720, 1280), 16, 32),
        ((512, 288), 16, 32),
        ((70, 90), 4, 16),
        ((90, 70), 16, 8),
    ):
        grids = [(-(-height // each), -(-width // each)) for each in (patch, other)]
        ours, theirs = (torch.randn(2, 3, *grid, generator=generator) for grid in grids)
        distiller = FeatureDistiller(3, 3)
        expected = distiller(ours, theirs)
        for student in (ours, ours.flatten(2).transpose(1, 2)):
            for teacher in (theirs, theirs.flatten(2).transpose(1, 2)):
                assert torch.equal(distiller(student, teacher, size=(height, width)), expected)
