"""The demo at toy size: real data, trainer, evaluation and pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from mmkd import demo
from mmkd.cli import app
from mmkd.errors import InputError
from mmkd.evaluation import evaluate_detections
from mmkd.runs.mmengine.recipes import MMRecipe
from mmkd.runs.running import RunResult, stored_result
from mmkd.work_dirs import read_work_dir


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def results(out: Path) -> list[RunResult]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "NUM_TRAIN", 16)
        patch.setattr(demo, "NUM_VAL", 4)
        first = demo.run_demo(out)
        # Everything is finished: the second call must not train again.
        patch.setattr("mmkd.runs.mmengine.recipes.Runner.from_cfg", None)
        assert demo.run_demo(out) == first
    return first


def test_three_detectors_on_one_data_set(results: list[RunResult]) -> None:
    assert [result.name for result in results] == ["teacher", "plain", "distilled"]
    teacher, plain, distilled = results
    assert teacher.parameters > 2 * plain.parameters
    assert plain.parameters == distilled.parameters


def test_checkpoints_are_ordinary_and_differ(results: list[RunResult]) -> None:
    plain, distilled = (
        torch.load(r.checkpoint, weights_only=False)["state_dict"] for r in results[1:]
    )
    assert list(plain) == list(distilled)
    assert not all(torch.equal(plain[key], distilled[key]) for key in plain)


def test_scores_are_those_of_the_trainers_own_evaluation(
    results: list[RunResult], out: Path
) -> None:
    for result in results:
        logged = read_work_dir(result.work_dir).curve("coco/bbox_mAP")
        assert logged is not None
        assert result.scores["mAP"] == pytest.approx(logged.points[-1][1], abs=0.051)
        scores = evaluate_detections(out / "data/annotations/val.json", result.detections)
        assert result.scores == scores.as_dict()


def test_pictures_and_tables(results: list[RunResult], out: Path) -> None:
    for name in ("detections.png", "curves.png", "gap.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    written = json.loads((out / "results.json").read_text())
    assert [run["name"] for run in written["runs"]] == ["plain", "distilled", "teacher"]
    scores = written["comparison"]["runs"]["distilled"]["metrics"]["mAP"]
    assert scores["values"] == [results[2].scores["mAP"]]
    gain = results[2].scores["mAP"] - results[1].scores["mAP"]
    assert scores["difference"]["value"] == pytest.approx(gain)
    assert f"distilled against plain: {gain:+.1f} mAP points" in (out / "results.md").read_text()


def test_the_report_is_one_page_of_all_runs(
    results: list[RunResult], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (out / "report.html").read_text()
    assert all(result.work_dir in page for result in results)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "NUM_TRAIN", 16)
        patch.setattr(demo, "NUM_VAL", 4)
        demo.run_demo(out)
    assert str(out / "report.html") in capsys.readouterr().out


def test_a_changed_config_is_trained_again(results: list[RunResult], out: Path) -> None:
    config = demo.digits_config("plain", 0, out / "data", out)
    assert stored_result(MMRecipe(config)) is not None
    config.optim_wrapper.optimizer.lr *= 2
    assert stored_result(MMRecipe(config)) is None


def test_another_teacher_is_another_run(results: list[RunResult], out: Path) -> None:
    config = demo.digits_config("distilled", 0, out / "data", out)
    checkpoint = Path(results[0].checkpoint)
    config.custom_hooks[0].teacher.checkpoint = str(checkpoint)
    assert stored_result(MMRecipe(config)) == results[2]
    weights = checkpoint.read_bytes()
    try:
        checkpoint.write_bytes(weights + b"x")
        assert stored_result(MMRecipe(config)) is None
    finally:
        checkpoint.write_bytes(weights)


def test_seeds_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seeds must be 1 or more, got 0"):
        demo.run_demo(tmp_path, seeds=0)


@pytest.mark.parametrize(
    "name", ["results.md", "results.json", "gap.png", "report.html", "plain_seed0/epoch_6.pth"]
)
def test_files_of_something_else_are_not_overwritten(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "NUM_TRAIN", 2)
    monkeypatch.setattr(demo, "NUM_VAL", 1)
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    with pytest.raises(InputError, match=Path(name).parts[0]):
        demo.run_demo(tmp_path)
    assert file.read_text() == "mine"
    assert not (tmp_path / "teacher").exists()


def test_command_makes_digits_and_refuses_to_overwrite(tmp_path: Path) -> None:
    command = ["data", "digits", "--out", str(tmp_path / "set"), "--num-train", "3"]
    made = CliRunner().invoke(app, [*command, "--num-val", "2", "--layout", "both"])
    assert made.exit_code == 0, made.output
    assert (tmp_path / "set/annotations/train.json").is_file()
    assert (tmp_path / "set/data.yaml").is_file()
    for other in ([*command, "--num-val", "4"], ["demo", "--out", str(tmp_path / "demo")]):
        (tmp_path / "demo/data").mkdir(parents=True, exist_ok=True)
        (tmp_path / "demo/data/mine.txt").touch()
        refused = CliRunner().invoke(app, other)
        assert refused.exit_code == 2
        assert "not empty" in refused.output or "holds" in refused.output
