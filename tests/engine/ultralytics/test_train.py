"""Configs, the command, and the demo on Ultralytics' trainer."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from ultralytics.cfg import get_cfg

from helpers.yolo_toy import YOLOToy
from mmkd import demo
from mmkd.cli import app
from mmkd.configs import config_file
from mmkd.engine.ultralytics.train import prepare, read_settings
from mmkd.evaluation import evaluate_detections
from mmkd.runs.running import RunResult, stored_result
from mmkd.terms import parse_terms
from mmkd.work_dirs import TASK_LOSS, read_work_dir

CONFIGS = Path(config_file("yolo/README.md")).parent
DISTILL = str(CONFIGS / "digits/yolov5n-small_digits_distill.yaml")


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("[!_]*/*.yaml")), ids=lambda file: file.stem)
def test_every_config_is_made_of_arguments_that_ultralytics_knows(file: Path) -> None:
    settings = read_settings(file)
    assert {"model", "teacher", "data", "epochs"} <= set(settings)
    arguments = {k: v for k, v in settings.items() if k not in ("teacher", "terms")}
    assert get_cfg(overrides=arguments).epochs == settings["epochs"]
    assert ("terms" in settings) <= (settings["teacher"] is not None)
    assert "terms" not in settings or parse_terms(settings["terms"], ["teacher"])


def test_a_config_by_name() -> None:
    name = Path(DISTILL).relative_to(CONFIGS).as_posix()
    assert read_settings(f"mmkd::yolo/{name}") == read_settings(DISTILL)


def with_terms(folder: Path) -> Path:
    """A config that sets terms of its own."""
    file = folder / "terms.yaml"
    file.write_text(f"_base_: {DISTILL}\nterms:\n  backbone:\n    level: -2\n    weight: 3.0\n")
    return file


def test_arguments_come_before_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["epochs=3", "lr0=0.5", "terms.backbone.weight=2", "teacher=t.pt", "resume"]
    settings = read_settings(with_terms(tmp_path), given)
    assert settings["epochs"] == 3
    assert settings["lr0"] == 0.5
    assert settings["terms"] == dict(backbone=dict(level=-2, weight=2))
    assert settings["teacher"] == "t.pt"
    assert settings["resume"] is True
    assert settings["imgsz"] == 96
    assert settings["project"] == str(tmp_path / "work_dirs/yolo/digits")


@pytest.mark.parametrize("given", ["weight.share=0.3", "weight={'share':0.3}"])
def test_a_share_comes_before_the_configs_number(given: str, tmp_path: Path) -> None:
    config = with_terms(tmp_path)
    assert read_settings(config)["terms"] == dict(backbone=dict(level=-2, weight=3.0))
    settings = read_settings(config, [f"terms.backbone.{given}"])
    assert settings["terms"] == dict(backbone=dict(level=-2, weight=dict(share=0.3)))


@pytest.mark.parametrize("argument", ["epochs", "=3", "epochs="])
def test_an_argument_that_is_none(argument: str) -> None:
    with pytest.raises(ValueError, match=f"expected key=value, got '{argument}'"):
        read_settings(None, [argument])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(model="yolov5n.yaml"), "teacher is missing"),
        (dict(teacher="t.pt"), "model is missing"),
        (dict(model="yolov5n.yaml", teacher=None, terms=dict(a=dict())), "terms need a teacher"),
    ],
)
def test_what_is_missing(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(settings)


def test_the_command_distils(toy: YOLOToy, tmp_path: Path) -> None:
    own = [f"model={toy.student}", f"data={toy.data}", f"project={tmp_path}", "name=run"]
    rest = ["epochs=1", "imgsz=64", "batch=8", "device=cpu", "plots=False", "workers=0"]
    command = ["yolo", "train", *own, *rest, f"teacher={toy.teacher}", "terms.backbone.weight=2"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    header, row = (tmp_path / "run/results.csv").read_text().splitlines()
    values = dict(zip(header.split(","), map(float, row.split(",")), strict=True))
    assert values["train/kd_loss"] == pytest.approx(2 * values["distill/backbone"], rel=1e-4)
    assert values["distill/backbone"] > 0
    # The report reads from the run's folder what it was taught by.
    run = read_work_dir(tmp_path / "run")
    assert run.teacher["checkpoint"] == str(toy.teacher)
    assert run.teacher["sha256"] == hashlib.sha256(Path(toy.teacher).read_bytes()).hexdigest()
    assert run.settings["terms.backbone.parts.weight"] == 2
    assert run.notes == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model=yolov5n.yaml"], "teacher is missing"),
        (["model=yolov5n.yaml", "teacher=nope.pt", "data=coco8.yaml"], "no such file: nope.pt"),
        (["model=yolov5n.yaml", "teacher=None", "epochss=3"], "'epochss' is not a valid"),
    ],
)
def test_the_command_tells_what_is_wrong(arguments: list[str], message: str) -> None:
    failed = CliRunner().invoke(app, ["yolo", "train", *arguments])
    assert failed.exit_code == 2
    assert message in failed.output
    assert "Traceback" not in failed.output


def test_an_optimizer_that_ultralytics_lacks(toy: YOLOToy, tmp_path: Path) -> None:
    own = [f"model={toy.student}", f"data={toy.data}", f"project={tmp_path}", "teacher=None"]
    rest = ["optimizer=foo", "epochs=1", "imgsz=64", "device=cpu", "plots=False"]
    failed = CliRunner().invoke(app, ["yolo", "train", *own, *rest])
    assert failed.exit_code == 2
    assert "mmkd yolo train: Optimizer 'foo' not found" in failed.output


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def results(out: Path) -> list[RunResult]:
    def short(file: str, arguments: tuple[str, ...] = ()) -> dict[str, Any]:
        return read_settings(file, [*arguments, "epochs=2"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "NUM_TRAIN", 16)
        patch.setattr(demo, "NUM_VAL", 4)
        patch.setattr("mmkd.engine.ultralytics.train.read_settings", short)
        first = demo.run_demo(out, framework="yolov5")
        patch.setattr("mmkd.runs.ultralytics.recipe.prepare", None)
        assert demo.run_demo(out, framework="yolov5") == first
        recipe = demo._yolov5_recipe("distilled", 0, out / "data", out)
        assert stored_result(recipe) == first[2]
        weights = Path(first[0].checkpoint)
        content = weights.read_bytes()
        weights.write_bytes(content + b"x")
        assert stored_result(recipe) is None
        weights.write_bytes(content)
    return first


def test_the_demo_scores_what_it_detects(results: list[RunResult], out: Path) -> None:
    assert [result.name for result in results] == ["teacher", "plain", "distilled"]
    assert results[1].parameters == results[2].parameters < results[0].parameters / 2
    truth = json.loads((out / "data/annotations/val.json").read_text())
    ids = {image["id"] for image in truth["images"]}
    for result in results:
        scores = evaluate_detections(out / "data/annotations/val.json", result.detections)
        assert result.scores == scores.as_dict()
        assert {box["image_id"] for box in json.loads(result.detections.read_text())} <= ids


def test_the_demos_pictures_and_curves(results: list[RunResult], out: Path) -> None:
    for name in ("detections.png", "curves.png", "gap.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    losses = dict(read_work_dir(results[2].work_dir).curve(TASK_LOSS).points)
    assert list(losses) == [1, 2]
    header, row = (Path(results[2].work_dir) / "results.csv").read_text().splitlines()[:2]
    values = dict(zip(header.split(","), map(float, row.split(",")), strict=True))
    task = sum(values[f"train/{name}_loss"] for name in ("box", "cls", "dfl"))
    assert losses[1] == pytest.approx(task)


def test_an_unknown_framework(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="framework must be one of"):
        demo.run_demo(tmp_path, framework="darknet")
