"""`mmkd report` and `mmkd compare` as a user runs them (what they make: see their modules)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from helpers.report_inputs import Inputs, make_inputs, mmengine_work_dir
from mmkd.cli import app


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return make_inputs(tmp_path_factory.mktemp("runs"))


def verdict(file: Path) -> str:
    found = re.search(r'<h1 id="verdict">(.*?)</h1>', file.read_text("utf-8"), re.S)
    assert found is not None
    return found[1]


def test_a_report_of_work_dirs(inputs: Inputs, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    done = run("report", *inputs.work_dirs, "--out", out, "--resamples", 20)
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(out)
    assert verdict(out).startswith("Distillation adds ")


def test_names_and_roles_by_options(inputs: Inputs, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    runs = [f"r50={inputs.plain[0]}", f"r50={inputs.plain[1]}", f"r101={inputs.teacher}"]
    options = ["--baseline", "r50", "--teacher", "r101", "--resamples", 20, "--out", out]
    done = run("report", *runs, f"ours={inputs.distilled}", *options)
    assert done.exit_code == 0, done.output
    assert re.match(r"ours adds [\d.]+ mAP to r50 \(95% interval ", verdict(out))
    unknown = run("report", *runs, "--baseline", "r18", "--out", tmp_path / "none.html")
    assert unknown.exit_code == 2 and "r50, r101" in " ".join(unknown.stderr.split())
    assert not (tmp_path / "none.html").exists()


def test_detections_that_lie_elsewhere(inputs: Inputs, tmp_path: Path) -> None:
    out, empty = tmp_path / "page.html", tmp_path / "empty.json"
    empty.write_text("[]")
    done = run(
        *("report", inputs.plain[0], "--detections", f"{inputs.plain[0]}={empty}"),
        *("--annotations", inputs.annotations, "--out", out),
    )
    assert done.exit_code == 0, done.output
    assert verdict(out) == "plain reaches 0.0 mAP (one seed)."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone"], "gone: expected the work dir"),
        (["{empty}"], "holds no logs"),
        (["{plain}", "{plain}"], "twice"),
        (["{plain}", "--annotations", "gone.json"], "gone.json"),
        (["{plain}", "--images", "gone"], "gone"),
        (["{plain}", "--detections", "a"], "WORK_DIR=FILE"),
        (["{plain}", "--out", "{other}"], "no report of mmkd's"),
    ],
)
def test_a_report_that_cannot_be(
    inputs: Inputs, tmp_path: Path, arguments: list[str], message: str
) -> None:
    other = tmp_path / "other.html"
    other.write_text("mine")
    places = dict(plain=inputs.plain[0], empty=tmp_path, other=other)
    failed = run(
        *("report", *(each.format(**places) for each in arguments)),
        *([] if "--out" in arguments else ["--out", tmp_path / "page.html"]),
    )
    assert failed.exit_code == 2, failed.output
    assert message in " ".join(failed.stderr.split())
    assert isinstance(failed.exception, SystemExit)
    assert other.read_text() == "mine" and not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (None, [], "no config"),
        ("model = dict(type='A')\n", [], "expected one mmkd.DistillHook"),
        ("x = = 3\n", [], "cannot be read as a config"),
        ("x = 1\n", ["-o", "epochs"], "key=value"),
        ("x = 1\n", ["--seed", "1", "--seed", "1"], "each once"),
    ],
)
def test_a_comparison_that_cannot_be(
    tmp_path: Path, config: str | None, options: list[str], message: str
) -> None:
    file = tmp_path / "config.py"
    if config is not None:
        file.write_text(config)
    failed = run("compare", file, "--out", tmp_path / "out", *options)
    assert failed.exit_code == 2, failed.output
    assert message in " ".join(failed.stderr.split())
    assert not (tmp_path / "out").exists()


def test_a_report_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths in a work dir count from where the training was started."""
    inputs = make_inputs(tmp_path)
    data = "val_evaluator = dict(type='CocoMetric', ann_file='annotations.json')\n"
    data += "val_dataloader = dict(dataset=dict(data_prefix=dict(img='photos')))\n"
    found = json.loads((inputs.plain[0] / "detections.bbox.json").read_text())
    run_dir = mmengine_work_dir(tmp_path / "runs" / "r50_seed0", config=data, found=found)
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    done = run("report", run_dir, "--out", "page.html")
    assert done.exit_code == 0, done.output
    assert verdict(Path("page.html")).startswith("r50 reaches ")
    assert "data:image/jpeg" in Path("page.html").read_text("utf-8")
    assert done.stderr == ""
    inputs.annotations.unlink()
    without = run("report", run_dir, "--out", "page.html")
    assert without.exit_code == 0
    assert "annotations.json is neither in the current folder" in without.stderr
    assert "--annotations" in without.stderr


def test_a_report_needs_a_folder(inputs: Inputs, tmp_path: Path) -> None:
    blocking = tmp_path / "file"
    blocking.write_text("mine")
    failed = run("report", inputs.plain[0], "--out", blocking / "page.html")
    assert failed.exit_code == 2 and "is a file" in failed.stderr
