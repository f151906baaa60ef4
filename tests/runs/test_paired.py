"""A config with and without its distillation, from the config to the report."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from mmengine.config import Config
from typer.testing import CliRunner
from yapf.yapflib import yapf_api

from helpers.paired_results import compare_and_write
from mmkd import demo
from mmkd.cli import app
from mmkd.configs import config_file
from mmkd.data import make_digits
from mmkd.errors import InputError
from mmkd.runs.mmengine.pair import MMPair
from mmkd.runs.mmengine.recipes import MMRecipe
from mmkd.runs.paired import check_same_start, compare_config
from mmkd.runs.recipe import Trained
from mmkd.runs.running import train_and_evaluate
from mmkd.work_dirs.run_result import RunResult

SEEDS = (3, 5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a digits set, a trained teacher and a config that distils it."""
    folder = tmp_path_factory.mktemp("compare")
    data = make_digits(folder / "data", num_train=8, num_val=4, image_size=64)
    teacher = demo.digits_config("teacher", 0, data, folder)
    teacher.train_cfg.max_epochs = 1
    checkpoint = train_and_evaluate(MMRecipe(teacher), "teacher").checkpoint
    config = demo.digits_config("distilled", 0, data, folder)
    config.train_cfg.max_epochs = 1
    config.custom_hooks[0].teacher.checkpoint = checkpoint
    config.custom_hooks.append(dict(type="EmptyCacheHook"))
    config.dump(folder / "distill.py")
    return folder


@pytest.fixture(scope="module")
def out(folder: Path) -> Path:
    """A comparison."""
    out = folder / "out"
    options = ["custom_hooks.0.terms.backbone.weight=2.5"]
    report = compare_and_write(folder / "distill.py", SEEDS, out, options=options)
    assert report == out / "report.html"
    return out


def compare(*arguments: Any) -> Result:
    """The command."""
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def results_of(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / "results.json").read_text())["runs"]


def config_of(run: dict[str, Any]) -> Config:
    [file] = Path(run["work_dir"]).glob("*.py")
    return Config.fromfile(file)


def test_pairs_differ_in_the_hook_alone(out: Path) -> None:
    runs = results_of(out)
    assert [(run["name"], run["seed"]) for run in runs] == [
        *(("plain", seed) for seed in SEEDS),
        *(("distilled", seed) for seed in SEEDS),
        ("teacher", 0),
    ]
    for seed in SEEDS:
        plain, distilled = (
            next(run for run in runs if (run["name"], run["seed"]) == (name, seed))
            for name in ("plain", "distilled")
        )
        assert plain["initial_weights"] == distilled["initial_weights"]
        without, with_hook = config_of(plain), config_of(distilled)
        [hook] = [hook for hook in with_hook.custom_hooks if hook not in without.custom_hooks]
        assert hook.type == "mmkd.DistillHook"
        assert hook.terms.backbone.weight == 2.5
        assert with_hook.randomness.seed == seed
        own = ("custom_hooks", "work_dir", "experiment_name", "visualizer", "val_evaluator")
        left, right = (
            {k: v for k, v in config.to_dict().items() if k not in own}
            for config in (without, with_hook)
        )
        assert left == right
        ends = [
            torch.load(run["checkpoint"], weights_only=False)["state_dict"]
            for run in (plain, distilled)
        ]
        assert not all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
    starts = {run["initial_weights"] for run in runs if run["name"] == "plain"}
    assert len(starts) == len(SEEDS)


def test_tables_and_report(out: Path, folder: Path) -> None:
    text = (out / "results.md").read_text()
    assert text.startswith("# distill, seeds 3, 5\n")
    assert "began from the same weights" in text
    assert "distilled against plain" in text
    written = json.loads((out / "results.json").read_text())
    runs = written["runs"]
    for name in ("plain", "distilled"):
        scores = [run["scores"]["mAP"] for run in runs if run["name"] == name]
        assert written["comparison"]["runs"][name]["metrics"]["mAP"]["values"] == scores
    assert runs[-1]["scores"] != runs[0]["scores"]
    assert runs[-1]["checkpoint"] == str(next(folder.glob("teacher/*.pth")))
    page = (out / "report.html").read_text()
    assert all(run["work_dir"] in page for run in runs if run["name"] != "teacher")


def test_finished_runs_are_kept(
    out: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = results_of(out)
    # Nothing is trained or tested again.
    monkeypatch.setattr("mmkd.runs.mmengine.recipes.Runner.from_cfg", None)
    options = ["custom_hooks.0.terms.backbone.weight=2.5"]
    compare_and_write(folder / "distill.py", SEEDS, out, options=options)
    assert results_of(out) == before
    assert "mAP over plain" in capsys.readouterr().out


def test_another_comparison_is_not_overwritten(out: Path, folder: Path) -> None:
    files = {file: file.stat().st_mtime_ns for file in out.rglob("*") if file.is_file()}
    with pytest.raises(InputError) as error:
        compare_config(folder / "distill.py", [*SEEDS, 7], out, options=["train_cfg.max_epochs=2"])
    message = str(error.value)
    assert all(str(out / f"{name}_seed3") in message for name in ("plain", "distilled"))
    assert "train_cfg.max_epochs was 1 and is 2" in message
    assert "choose another --out" in message
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*") if file.is_file()} == files


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("distilled_seed0/epoch_1.pth", "distilled_seed0 holds files of something else"),
        ("plain_seed0/last_checkpoint", "plain_seed0 holds files of something else"),
        ("plain_seed0/result.json", r"result\.json: expected what a run of mmkd's notes there"),
        ("teacher/detections.bbox.json", "teacher holds files of something else"),
        ("results.md", r"results\.md: not of a comparison of mmkd's"),
        ("results.json", r"results\.json: not of a comparison of mmkd's"),
        ("report.html", r"report\.html exists and is no report of mmkd's"),
    ],
)
def test_files_of_something_else_are_not_overwritten(
    name: str, message: str, folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "out" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(InputError, match=message):
        compare_and_write(folder / "distill.py", [0], tmp_path / "out")
    assert [each for each in (tmp_path / "out").rglob("*") if each.is_file()] == [file]
    assert file.read_text() == "mine"


def test_a_folder_that_was_moved(
    out: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(out, moved)
    monkeypatch.setattr("mmkd.runs.mmengine.recipes.Runner.from_cfg", None)
    options = ["custom_hooks.0.terms.backbone.weight=2.5"]
    compare_and_write(folder / "distill.py", SEEDS, moved, options=options)
    before, after = results_of(out), results_of(moved)
    assert [run["scores"] for run in after] == [run["scores"] for run in before]
    assert [run["work_dir"] for run in after] == [
        run["work_dir"].replace(str(out), str(moved)) for run in before
    ]
    # The teacher lies elsewhere and was not moved.
    assert after[-1]["checkpoint"] == before[-1]["checkpoint"]
    assert after[0]["checkpoint"] == str(moved / "plain_seed3/epoch_1.pth")


OPTIONS = ["custom_hooks.0.terms.backbone.weight=2.5"]


@pytest.mark.parametrize("seeds", [SEEDS, [7]])
def test_another_teacher_is_refused_by_its_name(
    out: Path, folder: Path, seeds: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it would be another seed of the same runs."""
    monkeypatch.setattr("mmkd.runs.mmengine.recipes.Runner.from_cfg", None)
    [teacher] = folder.glob("teacher/*.pth")
    weights = teacher.read_bytes()
    try:
        teacher.write_bytes(weights + b"x")
        with pytest.raises(InputError) as error:
            compare_config(folder / "distill.py", seeds, out, options=OPTIONS)
    finally:
        teacher.write_bytes(weights)
    message = str(error.value)
    assert f"custom_hooks.0.teacher.checkpoint ({teacher}) has changed" in message
    assert str(out / "distilled_seed3") in message and "plain_seed3" not in message
    assert not (out / "distilled_seed7").exists()


def test_other_images_are_refused_by_their_folder(out: Path, folder: Path) -> None:
    image = next((folder / "data/train").glob("*"))
    content = image.read_bytes()
    try:
        image.write_bytes(bytes(len(content)))
        with pytest.raises(InputError, match=r"training images \(.*data/train\) has changed"):
            compare_config(folder / "distill.py", SEEDS, out, options=OPTIONS)
    finally:
        image.write_bytes(content)


def test_a_teacher_that_is_swapped_between_two_seeds_is_an_error(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the comparison runs."""
    [teacher] = folder.glob("teacher/*.pth")
    checkpoint = shutil.copy(teacher, tmp_path / "teacher.pth")
    trained: list[str] = []

    def train(recipe: MMRecipe, on_iteration: Any, record: Any) -> Trained:
        on_iteration()
        trained.append(recipe.work_dir.name)
        if recipe.work_dir.name == "plain_seed0":
            checkpoint.write_bytes(checkpoint.read_bytes() + b"x")
        weights = recipe.work_dir / "epoch_1.pth"
        weights.touch()
        return Trained(1, 1.0, str(weights), {"mAP": 1.0}, initial_weights="a")

    monkeypatch.setattr(MMRecipe, "train", train)
    options = [f"custom_hooks.0.teacher.checkpoint={checkpoint}"]
    message = r"distilled_seed1: since the comparison began, .*teacher\.checkpoint \(.*has changed"
    with pytest.raises(InputError, match=message):
        compare_config(folder / "distill.py", [0, 1], tmp_path / "out", options=options)
    assert trained == ["distilled_seed0", "plain_seed0"]


def test_a_teacher_of_other_classes_is_not_scored(folder: Path, tmp_path: Path) -> None:
    config = Config.fromfile(folder / "distill.py")
    truth = json.loads((folder / "data/annotations/val.json").read_text())
    for category in truth["categories"]:
        category["name"] = f"digit {category['name']}"
    annotations = tmp_path / "val.json"
    annotations.write_text(json.dumps(truth))
    classes = tuple(category["name"] for category in truth["categories"])
    config.val_dataloader.dataset.ann_file = str(annotations)
    config.val_dataloader.dataset.metainfo = dict(classes=classes)
    config.val_evaluator.ann_file = str(annotations)
    config.dump(tmp_path / "distill.py")
    compare_and_write(tmp_path / "distill.py", [0], tmp_path / "out")
    assert [run["name"] for run in results_of(tmp_path / "out")] == ["plain", "distilled"]
    assert "The teacher was not scored: " in (tmp_path / "out/results.md").read_text()


def test_several_configs_have_the_plain_runs_in_common(folder: Path, tmp_path: Path) -> None:
    """By the command, with the report of all."""
    strong = change(
        folder, tmp_path / "strong.py", **{"custom_hooks.0.terms.backbone.weight": 50.0}
    )
    out = tmp_path / "out"
    done = compare(f"weak={folder / 'distill.py'}", strong, "--resamples", 20, "--out", out)
    assert done.exit_code == 0, done.output
    runs = results_of(out)
    assert [run["name"] for run in runs] == ["plain", "weak", "strong", "teacher"]
    assert len({run["initial_weights"] for run in runs[:3]}) == 1
    assert {Path(run["work_dir"]).name for run in runs[:3]} == {
        *("plain_seed0", "weak_seed0", "strong_seed0")
    }
    terms = [config_of(run).custom_hooks[0].get("terms") for run in runs[1:3]]
    assert terms == [None, dict(backbone=dict(weight=50.0))]
    text = (out / "results.md").read_text()
    assert text.startswith("# distill, strong, seed 0\n")
    assert "weak against plain" in text and "strong against plain" in text
    page = (out / "report.html").read_text()
    assert all(run["work_dir"] in page for run in runs)
    # One of them alone is the same run.
    alone = [f"strong={strong}", "--out", out, "--resamples", 0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmkd.runs.mmengine.recipes.Runner.from_cfg", None)
        assert compare(*alone).exit_code == 0


def test_configs_that_differ_in_more_than_their_distillation(folder: Path, tmp_path: Path) -> None:
    changes = {"optim_wrapper.optimizer.lr": 0.5, "custom_hooks.0.terms.backbone.weight": 2.0}
    other = change(folder, tmp_path / "other.py", **changes)
    failed = compare(folder / "distill.py", other, "--out", tmp_path / "out")
    assert failed.exit_code == 2
    message = " ".join(failed.stderr.split())
    assert "no plain runs in common" in message and "lr was 0.002 and is 0.5" in message
    assert "weight" not in message
    for configs, reason in (
        ((f"plain={other}",), "'plain' cannot name"),
        ((f"a/b={other}",), "'a/b' cannot name"),
        ((other, tmp_path / "x/other.py"), "would both be called 'other'"),
    ):
        failed = compare(*configs, "--out", tmp_path / "out")
        assert failed.exit_code == 2 and reason in " ".join(failed.stderr.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("is_tried", [False, True])
def test_an_interrupt_while_a_config_is_formatted_ends_the_command(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_tried: bool
) -> None:
    """MMEngine takes it for an error of yapf's: in the trial, and as the teacher is scored."""

    def format_code(text: str, **_: Any) -> tuple[str, bool]:
        os.kill(os.getpid(), signal.SIGINT)
        return text, False

    if not is_tried:
        monkeypatch.setattr("mmkd.runs.paired.try_training", lambda *_: None)
    monkeypatch.setattr(yapf_api, "FormatCode", format_code)
    stopped = compare(folder / "distill.py", "--out", tmp_path / "out")
    assert stopped.exit_code == 130
    assert stopped.stderr == "mmkd compare: stopped; the same call goes on from here\n"
    assert not list(tmp_path.glob("out/*_seed0"))


def test_classifiers(tmp_path: Path) -> None:
    from mmkd.runs.mmengine.classification import ClassificationRecipe

    def config(name: str) -> Config:
        read = Config.fromfile(config_file(f"classification/digits/{name}.py"))
        read.train_cfg.max_epochs = 1
        return read

    teacher = config("resnet8_digits")
    teacher.merge_from_dict(dict(work_dir=str(tmp_path / "teacher"), randomness=dict(seed=0)))
    checkpoint = train_and_evaluate(ClassificationRecipe(teacher), "teacher").checkpoint
    options = [f"custom_hooks.0.teacher.checkpoint={checkpoint}", "train_cfg.max_epochs=1"]
    name = "mmkd::classification/digits/resnet8-w4_kd_digits.py"
    report = compare_and_write(name, [0], tmp_path / "out", options=options)
    assert report.is_file()
    plain, distilled = results_of(tmp_path / "out")
    assert plain["initial_weights"] == distilled["initial_weights"]
    gain = distilled["scores"]["top1"] - plain["scores"]["top1"]
    assert re.search(
        rf"^\| distilled .* {re.escape(f'{gain:+.1f}')} \|",
        (tmp_path / "out/results.md").read_text(),
        re.M,
    )
    # The page says the same.
    page = report.read_text()
    assert "without a score" not in page and "No detections were found" not in page
    ends = f"{distilled['scores']['top1']:.4g}, {abs(gain):.3g} {'above' if gain >= 0 else 'below'}"
    assert f'<h1 id="verdict">distilled ends at top1 {ends} plain (one seed).</h1>' in page
    for run in (plain, distilled):
        assert f'data-value="{run["scores"]["top1"]}"' in page


# Bad input --------------------------------------------------------------------------------


def change(folder: Path, file: Path, **changes: Any) -> Path:
    config = Config.fromfile(folder / "distill.py")
    hooks = changes.pop("hooks", None)
    if hooks is not None:
        config.custom_hooks = [config.custom_hooks[index] for index in hooks]
    config.merge_from_dict(changes)
    config.dump(file)
    return file


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(hooks=[]), r"expected one mmkd\.DistillHook in custom_hooks, found 0"),
        (dict(hooks=[0, 0]), r"expected one mmkd\.DistillHook in custom_hooks, found 2"),
        ({"custom_hooks.0.terms.backbone.wait": 3}, "wait"),
        (
            dict(train_cfg=dict(_delete_=True, type="IterBasedTrainLoop", max_iters=9)),
            "expected train_cfg with max_epochs, found .*IterBased",
        ),
        (
            dict(val_evaluator=dict(_delete_=True, type="VOCMetric")),
            "expected one CocoMetric as val_evaluator .* found VOCMetric",
        ),
        (dict(val_evaluator=None), "expected one CocoMetric as val_evaluator .* found none"),
        ({"val_evaluator.ann_file": None}, "val_evaluator has no ann_file"),
        ({"val_evaluator.ann_file": "none.json"}, r"there is no annotation file none\.json"),
        ({"train_dataloader.dataset.ann_file": "none.json"}, r"no annotation file .*none\.json"),
        ({"train_cfg.max_epochs": 0}, r"max_epochs: expected a number of epochs, 1 or more, got 0"),
        ({"custom_hooks.0.terms.backbone.student": "bakbone"}, r"backbone\.student: .*bakbone"),
        ({"custom_hooks.0.terms.backbone.level": 9}, r"terms\.backbone.*level"),
        ({"custom_hooks.0.terms.backbone.view": "dens"}, r"terms\.backbone.*'dens'"),
        ({"custom_hooks.0.terms.backbone.loss.type": "mmkd.Nosuch"}, r"terms\.backbone.*Nosuch"),
        (
            {"model.backbone.frozen_stages": 4, "custom_hooks.0.terms.backbone.stride": "all"},
            r"terms\.backbone: .*no gradient",
        ),
        ({"model.backbone.type": "NoNet"}, r"does not begin: .*NoNet.* More in "),
    ],
)
def test_configs_that_cannot_be_compared(
    changes: dict[str, Any], message: str, folder: Path, tmp_path: Path
) -> None:
    file = change(folder, tmp_path / "changed.py", **changes)
    with pytest.raises(InputError, match=message) as error:
        compare_config(file, [0], tmp_path / "out")
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(file))
    assert not (tmp_path / "out").exists()
    for log in re.findall(r"More in (\S+)", str(error.value)):
        assert "NoNet" in Path(log).read_text()
        Path(log).unlink()


def test_files_that_are_missing(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no config .*none\.py"):
        compare_config(tmp_path / "none.py", [0], tmp_path / "out")
    with pytest.raises(FileNotFoundError, match=r"no config .*none\.yaml"):
        compare_config(tmp_path / "none.yaml", [0], tmp_path / "out")
    teacher = ["custom_hooks.0.teacher.checkpoint=none.pth"]
    with pytest.raises(FileNotFoundError, match=r"checkpoint: no such file: none\.pth"):
        compare_config(folder / "distill.py", [0], tmp_path / "out", options=teacher)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["x = ", "raise RuntimeError", "_base_ = 'none.py'"])
def test_files_that_are_no_configs(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text(text)
    with pytest.raises(InputError, match=r"config\.py cannot be read as a config"):
        compare_config(tmp_path / "config.py", [0], tmp_path / "out")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(seeds=[]), r"seeds: expected at least one, each once, got \[\]"),
        (dict(seeds=[1, 2, 1]), r"each once, got \[1, 2, 1\]"),
        (dict(seeds=[0], workers=0), "workers: expected 1 or more, got 0"),
        (dict(seeds=[0], options=["train_cfg.max_epochs"]), "expected key=value, got"),
        (dict(seeds=[0], options=["--foo=1"]), "expected key=value, got '--foo=1'"),
        (dict(seeds=[0], options=["=1"]), "expected key=value, got '=1'"),
        (dict(seeds=[0], options=["custom_hooks.7.terms=3"]), "cannot be read as a config"),
    ],
)
def test_options_that_make_no_sense(
    settings: dict[str, Any], message: str, folder: Path, tmp_path: Path
) -> None:
    seeds: Sequence[int] = settings.pop("seeds")
    with pytest.raises(InputError, match=message):
        compare_config(folder / "distill.py", seeds, tmp_path / "out", **settings)


# Parts ------------------------------------------------------------------------------------


def result(name: str, seed: int = 0, **settings: Any) -> RunResult:
    return RunResult(
        name=name,
        seed=seed,
        scores={"top1": 50.0},
        parameters=1_500_000,
        training_seconds=10.0,
        checkpoint="w.pth",
        work_dir=name,
        **settings,
    )


def test_different_starts_are_an_error() -> None:
    pair = [result("plain", initial_weights="aa"), result("distilled", initial_weights="aa")]
    other = [result("plain", 1, initial_weights="bb"), result("distilled", 1, initial_weights="bb")]
    teacher = result("teacher", initial_weights="cc")
    check_same_start([teacher, *pair, *other])
    with pytest.raises(InputError, match=r"seed 1: .*plain from bb, distilled from dd"):
        check_same_start([*pair, other[0], replace(other[1], initial_weights="dd")])


def test_the_pair_is_read_with_its_options(folder: Path) -> None:
    pair = MMPair.read(folder / "distill.py", ["train_cfg.max_epochs=4", "auto_scale_lr.enable=1"])
    assert pair.recipe(True, 9, folder / "x").config.train_cfg.max_epochs == 4
    assert pair.scored_on == (folder / "data/annotations/val.json", folder / "data/val")
