"""The method study's figures are joined over calls, and judged by their seeds."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmkd.work_dirs.run_result import RunResult

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    import method_results

    yield method_results
    for name in set(sys.modules) - before:
        if (BENCHMARKS / f"{name}.py").is_file():
            sys.modules.pop(name)


def run(name: str, seed: int, top1: float) -> RunResult:
    return RunResult(name, seed, dict(top1=top1), 1, 1.0, "", "")


def test_calls_are_joined(results: Any) -> None:
    from strong_teacher import Teacher

    teacher = Teacher("strong", "config", "checkpoint", 64, 83.5)
    first = results.with_runs({}, teacher, [run("plain", 0, 60.0), run("sp", 0, 61.0)], 10)
    found = results.with_runs(first, teacher, [run("plain", 0, 60.0), run("sp", 1, 63.0)], 10)
    assert found["strong"]["methods"] == dict(plain={"0": 60.0}, sp={"0": 61.0, "1": 63.0})
    assert found["strong"]["accuracy"] == 83.5
    other = results.with_runs(found, Teacher("ordinary", "", "", 64, 70.0), [], 20)
    assert other["strong"] == found["strong"] and other["ordinary"]["epochs"] == 20
    with pytest.raises(ValueError, match="strong teacher after 10 epochs, not after 20"):
        results.with_runs(found, teacher, [], 20)


@pytest.mark.parametrize(
    ("better", "worse", "mark"),
    [
        ({"0": 70.0}, {"0": 67.0}, "+"),  # 2 * sqrt(2) = 2.8
        ({"0": 70.0}, {"0": 67.5}, "·"),
        ({"0": 67.0}, {"0": 70.0}, "-"),
        # 2 * sqrt(1 / 3 + 1 / 3) = 1.6
        ({"0": 70.0, "1": 71.0, "2": 72.0}, {"0": 68.0, "1": 69.0, "2": 70.0}, "+"),
        # The first seed disagrees.
        ({"0": 68.0, "1": 75.0, "2": 75.0}, {"0": 68.5, "1": 69.0, "2": 69.0}, "·"),
        # Only the second is shared.
        ({"0": 60.0, "1": 75.0}, {"1": 65.0, "2": 61.0}, "+"),
    ],
)
def test_marks(results: Any, better: dict, worse: dict, mark: str) -> None:
    assert results._mark(better, worse, 1.0) == mark
    assert results._mark(better, worse, None) == "·"


def test_the_table_ranks_and_says_what_agrees(results: Any, tmp_path: Path) -> None:
    scores = {
        "plain": {"0": 60.0, "1": 60.2},
        "rkd": {"0": 55.0, "1": 55.2},
        "sp": {"0": 50.0, "1": 50.2},
    }
    found = dict(ordinary=dict(epochs=20, accuracy=77.2, methods=scores))
    cost = dict(
        seconds=dict(plain=0.02, sp=0.03),
        peak_bytes=dict(plain=2**20, sp=3 * 2**20),
        added_parameters=dict(plain=0, sp=1234),
    )
    out = tmp_path / "study.md"
    results.write_results(found, cost, out)
    lines = out.read_text().splitlines()
    assert "| 3 | sp | 2 | 50.1 ± 0.1 | -10.0 | 1.50 | +2 | 1,234 |" in lines
    assert "| 2 | rkd | 2 | 55.1 ± 0.1 | -5.0 |  | |  |" in lines
    # Chen et al.: sp 72.94, plain 72.93, rkd 71.90.
    assert "| sp | 72.94 | 50.1 ± 0.1 | - | - |" in lines
    assert "| plain | 72.93 | 60.1 ± 0.1 |  | + |" in lines
    count = "Of 3 pairs, 1 are in the published order, 2 in the opposite one and 0 unclear."
    assert count in lines
    assert json.loads(out.with_suffix(".json").read_text()) == found
    assert out.with_suffix(".png").is_file()
