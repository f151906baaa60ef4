"""Reading weights without executing what is pickled beside them, and loading them strictly."""

from __future__ import annotations

from mmkd.checkpoint.loading import LoadReport, load_weights
from mmkd.checkpoint.reading import CheckpointWeights, read_weights
from mmkd.checkpoint.renaming import renamed_by_position

__all__ = [
    "CheckpointWeights",
    "LoadReport",
    "load_weights",
    "read_weights",
    "renamed_by_position",
]
