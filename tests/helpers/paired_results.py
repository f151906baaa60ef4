"""What ``mmkd compare`` does, without its command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmkd.report.results import check_out, compare_results, write_results
from mmkd.runs.paired import compare_config

__all__ = ["compare_and_write"]


def compare_and_write(config: Path, seeds: Sequence[int], out: Path, **settings: Any) -> Path:
    """Trains the runs of a comparison and writes their results; returns the report."""
    check_out(out)
    runs = compare_config(config, seeds, out, **settings)
    compared = compare_results(runs.results, resamples=20)
    return write_results(compared, out, title=runs.title, notes=runs.notes)
