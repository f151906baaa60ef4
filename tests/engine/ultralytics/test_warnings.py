"""A term that cannot help is said once in Ultralytics' log, and in the run's folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ultralytics.utils import LOGGER

from helpers.yolo_toy import YOLOToy, distil
from mmkd import term_watch
from mmkd.work_dirs import read_work_dir

# Iterations of a window: as few as means of ten blocks take. An epoch has four.
WINDOW = 24


def blind(toy: YOLOToy, folder: Path) -> YOLOToy:
    """With a teacher that sees nothing: its first convolution is 0."""
    content = torch.load(toy.teacher, weights_only=False)
    content["model"].model[0].conv.weight.data.zero_()
    torch.save(content, folder / "blind.pt")
    return replace(toy, teacher=folder / "blind.pt")


def test_a_teacher_that_knows_no_better(
    toy: YOLOToy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(term_watch, "_SHORTEST", WINDOW)
    monkeypatch.setattr(term_watch, "_WINDOWS", 1)
    # After two dozen iterations the student knows little more than a teacher that sees nothing.
    monkeypatch.setattr(term_watch, "_LEAST_LEAD", 0.2)
    lines: list[str] = []
    # Its level is that of errors in these tests.
    monkeypatch.setattr(LOGGER, "warning", lines.append)
    terms = dict(a=dict(student="neck", teacher="neck", level=0))
    epochs = WINDOW // 4 + 1
    trainer = distil(blind(toy, tmp_path), terms, epochs=epochs, val=False, mosaic=0.0)
    found = json.loads((Path(trainer.save_dir) / "distill_warnings.json").read_text())
    assert ("a", "no lead") in [(each["term"], each["kind"]) for each in found]
    assert not any(each["kind"] in ("opposed", "bound") for each in found)
    for each in found:
        assert lines.count(each["text"]) == 1
        assert each["text"].startswith("DistillCallback terms.a (")
    assert read_work_dir(trainer.save_dir).warnings == [each["text"] for each in found]


def test_a_short_run_says_nothing(toy: YOLOToy) -> None:
    trainer = distil(toy, val=False)
    assert not (Path(trainer.save_dir) / "distill_warnings.json").exists()
    assert read_work_dir(trainer.save_dir).warnings == []
