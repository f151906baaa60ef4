"""A term that cannot help is said once in MMEngine's log, and in the run's folder and report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from helpers.detector import detector_config, write_detector_teacher
from helpers.toy import distill, distill_hook_of, toy_config, train
from mmkd import term_watch
from mmkd.distiller import Distiller
from mmkd.losses import Takes
from mmkd.registry import MODELS
from mmkd.report import write_report
from mmkd.targets import Targets
from mmkd.work_dirs import read_work_dir

# Iterations of a window: as few as means of ten blocks take.
WINDOW = 24


@pytest.fixture(autouse=True)
def short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(term_watch, "_SHORTEST", WINDOW)


@MODELS.register_module()
class Against(Distiller):
    """Less the student's own loss: its gradient is that of the task, turned round."""

    takes = Takes(form="maps", targets=("labels",))

    def __init__(self, student_classifier: nn.Module, weight: float = 1.0) -> None:
        super().__init__(weight)
        self._head = [student_classifier]

    def distance(self, student: Tensor, teacher: Tensor, targets: Targets | None = None) -> Tensor:
        assert targets is not None
        logits = self._head[0](student.relu().mean(dim=(2, 3)))
        return -cross_entropy(logits, targets.labels)


def said(runner: Runner) -> list[tuple[str, str]]:
    file = Path(runner.work_dir) / "distill_warnings.json"
    found = json.loads(file.read_text()) if file.is_file() else []
    watched = distill_hook_of(runner)._built.watch.warnings
    assert found == [each._asdict() for each in watched]
    logs = "".join(log.read_text() for log in Path(runner.work_dir).glob("*/*.log"))
    assert all(logs.count(each["text"]) == 1 for each in found)
    return [(each["term"], each["kind"]) for each in found]


def test_a_gradient_that_opposes_the_task_s(tmp_path: Path, teacher: dict) -> None:
    against = dict(
        type="Against", student="neck", teacher="neck", student_classifier="head", weight=0.1
    )
    terms = dict(backbone=dict(), against=against)
    settings = {"train_cfg.max_epochs": 3 * WINDOW // 4, "default_hooks.checkpoint.interval": 100}
    settings |= {"train_dataloader.dataset.type": "LabelledImages"}
    runner = train(toy_config(tmp_path, **distill(teacher, terms), **settings))
    found = said(runner)
    assert ("against", "opposed") in found
    assert not any(term == "backbone" for term, _ in found)
    texts = read_work_dir(runner.work_dir).warnings
    assert len(texts) == len(found)
    assert texts[0].startswith("DistillHook terms.against (neck[-1]): its gradient opposes")
    page = write_report([Path(runner.work_dir)], tmp_path / "report.html").read_text()
    verdict, rest = page.index('<h1 id="verdict">'), page.index('<section id="scores"')
    assert "its gradient opposes the task" in page[verdict:rest]


def test_a_run_that_begins_anew_leaves_no_warnings_of_another(
    tmp_path: Path, teacher: dict
) -> None:
    config = toy_config(tmp_path, **distill(teacher), **{"train_cfg.max_epochs": 1})
    file = Path(config.work_dir) / "distill_warnings.json"
    file.parent.mkdir(parents=True)
    file.write_text("[]")
    assert said(train(config)) == [] and not file.exists()


def blind(teacher: dict[str, str]) -> dict[str, str]:
    """A teacher that sees nothing: its first convolution is 0."""
    content = torch.load(teacher["checkpoint"])
    weight = content["state_dict"]["backbone.conv1.weight"]
    weight.zero_()
    torch.save(content, teacher["checkpoint"])
    return teacher


def test_a_teacher_that_knows_no_better(
    tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(term_watch, "_WINDOWS", 1)
    config = detector_config(digits, tmp_path)
    config.train_cfg.update(max_epochs=WINDOW // 3, val_interval=1000)
    config.default_hooks.checkpoint.interval = 1000
    config.merge_from_dict(distill(blind(write_detector_teacher(tmp_path)), dict(a=dict())))
    runner = train(config)
    assert ("a", "no lead") in said(runner)
    [text] = [each for each in read_work_dir(runner.work_dir).warnings if "no better" in each]
    assert "a linear probe on the teacher's feature explains" in text
