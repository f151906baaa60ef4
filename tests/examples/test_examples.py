"""The example scripts run, and what they print is what they say they do."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(script: str, *arguments: str) -> list[str]:
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout.splitlines()


def test_a_timm_classifier() -> None:
    lines = run("timm_classifier.py", "--epochs", "1", "--images", "64")
    found = [re.fullmatch(r"(.+): (\d+\.\d)%", line) for line in lines]
    assert [each and each[1] for each in found] == ["teacher", "plain student", "distilled student"]
    assert all(each and 0 < float(each[2]) <= 100 for each in found)


def test_a_torchvision_detector(tmp_path: Path) -> None:
    arguments = ["--data", str(tmp_path / "digits"), "--epochs", "1", "--images", "8"]
    lines = run("torchvision_detector.py", *arguments)
    losses = {line.partition(":")[0]: float(line.split()[-1]) for line in lines if "loss" in line}
    assert len(losses) == 2
    plain, distilled = losses.values()
    # Two iterations from the same weights: only the second can differ, and only a little.
    assert plain != distilled
    assert abs(plain - distilled) < 0.5 * plain
