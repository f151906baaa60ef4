"""What projectors share: their interface, and where a feature's channels lie."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

__all__ = [
    "Projector",
    "channels_last",
    "restore_channels",
]


class Projector(nn.Module):
    """From the student's space to the teacher's: samples ``[M, C_in]``, tokens ``[N, L, C_in]`` or
    a map ``[N, C_in, H, W]`` to the same with C_out channels.

    It takes ``(in_channels, out_channels, ..., *, generator=None)`` and draws its initial weights
    from ``generator``, by default one of its own, never from the global random state.

    Attributes:
        takes_maps: Whether it needs the student's map as it is, since it looks at neighbours.
    """

    takes_maps: ClassVar[bool] = False


def channels_last(x: Tensor, in_channels: int) -> Tensor:
    """``x`` with its channels in the last dimension; a map has them in dimension 1.

    Raises:
        ValueError: They are not ``in_channels``.
    """
    if x.ndim == 4:
        x = x.permute(0, 2, 3, 1)
    if x.shape[-1] != in_channels:
        raise ValueError(f"the projector takes {in_channels} channels, got {x.shape[-1]}")
    return x


def restore_channels(x: Tensor, rank: int) -> Tensor:
    """Puts the channels back where a feature of this rank has them."""
    return x.permute(0, 3, 1, 2) if rank == 4 else x
