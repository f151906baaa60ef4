"""Which grid of locations a sequence of tokens stands for."""

from __future__ import annotations

from functools import lru_cache

__all__ = ["extra_tokens", "token_grid"]

Grid = tuple[int, int]
# More class, distillation and register tokens than these no known network puts first.
_MOST_EXTRA = 8


@lru_cache(maxsize=1024)
def token_grid(length: int, size: Grid) -> Grid:
    """Rows and columns of a network's tokens: ``height / patch`` and ``width / patch``, both
    rounded down (as a ViT cuts its patches) or both up (as a Swin pads).

    There is one such grid at most: no two patches, however they round, give the same number of
    tokens on two grids.

    Args:
        length: Number of tokens, those of class and distillation left out.
        size: Height and width of the images in pixels, padding included.

    Raises:
        ValueError: No patch gives so many tokens.
    """
    found = _grid(length, size)
    if found is not None:
        return found
    advice = "tap a module that returns [N, C, H, W], or use view='global'"
    extra = extra_tokens(length, size)
    if extra is not None:
        advice = (
            f"if the first {extra} stand for no patch (class, distillation, register), leave them "
            f"out with student_extra_tokens={extra} or teacher_extra_tokens={extra}; else {advice}"
        )
    raise ValueError(
        f"{length} tokens of images of {size[0]} x {size[1]} pixels (height x width) form no grid "
        f"of square patches: {advice}"
    )


def extra_tokens(length: int, size: Grid) -> int | None:
    """How many leading tokens stand for no patch (class, distillation, register): the fewest that
    leave a grid; None where no number does.

    Args:
        length, size: See :func:`token_grid`.
    """
    return next((n for n in range(_MOST_EXTRA + 1) if _grid(length - n, size)), None)


def _grid(length: int, size: Grid) -> Grid | None:
    height, width = size
    for patch in range(1, max(size) + 1):
        down = height // patch, width // patch
        up = -(-height // patch), -(-width // patch)
        for rows, columns in (down, up):
            if rows * columns == length > 0:
                return rows, columns
    return None
