"""`mmkd eval` as a user runs it."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from helpers import scenes
from helpers.spoiled_json import spoiled
from mmkd.cli import app
from mmkd.commands.eval_settings import parse_areas
from mmkd.commands.named_files import parse_pairs, parse_runs
from mmkd.errors import InputError
from mmkd.evaluation import evaluate_detections


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(app, ["eval", *map(str, arguments)])


def refused(*arguments: Any) -> str:
    """The message of a command that ends with one."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    return " ".join(result.stderr.split())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("command")
    truth = scenes.truth_of(2, 20)
    files = {"truth": scenes.write(folder, "truth.json", truth)}
    for index, (name, noise) in enumerate((("plain", 0.3), ("distilled", 0.15), ("teacher", 0.05))):
        files[name] = scenes.write(
            folder, f"{name}.json", scenes.found_in(truth, index, noise=noise)
        )
    return files


def test_three_runs(files: dict[str, Path], tmp_path: Path) -> None:
    out = {option: tmp_path / "new" / f"out.{option}" for option in ("json", "csv", "markdown")}
    result = run(
        files["truth"],
        *(files[name] for name in ("plain", "distilled", "teacher")),
        *(part for option, file in out.items() for part in (f"--{option}", file)),
        *("--resamples", 100, "--figures", tmp_path / "figures"),
    )
    assert result.exit_code == 0, result.output
    assert "distilled against plain: +" in " ".join(result.stdout.split())
    stored = json.loads(out["json"].read_text())
    for name in ("plain", "distilled", "teacher"):
        expected = evaluate_detections(files["truth"], files[name]).as_dict()
        for metric, value in expected.items():
            assert stored["runs"][name]["metrics"][metric]["mean"] == value
    assert stored["teacher"] == "teacher" and stored["resamples"] == 100
    rows = list(csv.DictReader(out["csv"].open(newline="")))
    assert float(rows[0]["mean"]) == stored["runs"]["plain"]["metrics"]["mAP"]["mean"]
    assert "| mAP " in out["markdown"].read_text()
    assert len(list((tmp_path / "figures").glob("*.png"))) == 4  # no costs are known
    again = run(files["truth"], files["plain"], "--csv", out["csv"])
    assert again.exit_code == 2 and "--force" in again.stderr


def test_the_same_call_gives_the_same_bytes(files: dict[str, Path], tmp_path: Path) -> None:
    texts = []
    for name in ("a.json", "b.json"):
        arguments = (files["truth"], files["plain"], files["distilled"], "--resamples", 50)
        assert run(*arguments, "--json", tmp_path / name).exit_code == 0
        texts.append((tmp_path / name).read_bytes())
    assert texts[0] == texts[1]


def test_areas_limits_and_backend(files: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("faster_coco_eval")
    stored = []
    for backend in ("pycocotools", "faster"):
        result = run(
            *(files["truth"], f"mine={files['plain']}", "--json", tmp_path / f"{backend}.json"),
            *("--area", "tiny=0:400", "--area", "rest=400:1e10"),
            *("--max-detections", "2,5", "--backend", backend),
        )
        assert result.exit_code == 0, result.output
        stored.append(json.loads((tmp_path / f"{backend}.json").read_text())["runs"]["mine"])
    metrics = {name: entry["mean"] for name, entry in stored[0]["metrics"].items()}
    assert {"AP_tiny", "AP_rest", "AR2", "AR5"} < set(metrics)
    assert metrics["AR2"] < metrics["AR5"]
    for name, value in metrics.items():
        assert stored[1]["metrics"][name]["mean"] == pytest.approx(value, abs=1e-9)


def test_empty_detections_score_0(files: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    empty = scenes.write(tmp_path, "empty.json", [])
    assert run(files["truth"], empty, "--json", out).exit_code == 0
    figures = json.loads(out.read_text())["runs"]["empty"]
    assert figures["metrics"]["mAP"]["mean"] == 0
    assert figures["errors"]["missed"]["ap50"] == pytest.approx(100)


def test_an_annotation_file_with_crowds_only(tmp_path: Path) -> None:
    truth = scenes.truth_of(2, 3)
    for annotation in truth["annotations"]:
        annotation["iscrowd"] = 1
    found = scenes.write(tmp_path, "found.json", scenes.found_in(truth, 0))
    out = tmp_path / "out.json"
    result = run(scenes.write(tmp_path, "truth.json", truth), found, "--json", out)
    assert result.exit_code == 0, result.output
    assert json.loads(out.read_text())["runs"]["found"]["metrics"]["mAP"]["mean"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{truth}", "{truth}"], "truth.json"),
        (["{plain}", "{truth}"], "plain.json"),
        (["{truth}", "gone.json"], "gone.json"),
        (["gone.json", "{plain}"], "gone.json"),
        (["{truth}", "{plain}", "--baseline", "other"], "'other'"),
        (["{truth}", "{plain}", "--area", "tiny=0-5"], "NAME=LOW:HIGH"),
        (["{truth}", "{plain}", "--area", "tiny=9:5"], "'tiny'"),
        (["{truth}", "{plain}", "--max-detections", "0"], "from 1 up"),
        (["{truth}", "{plain}", "--max-detections", "many"], "1,10,100"),
        (["{truth}", "{plain}", "--config", "plain"], "NAME=FILE"),
        (["{truth}", "{plain}", "--json", "{truth}"], "to be read"),
        (["{truth}", "{plain}", "--json", "{plain}", "--force"], "to be read"),
        (["{truth}", "{plain}", "--json", "{folder}", "--force"], "found a folder"),
        (["{truth}", "{plain}", "--csv", "{plain}/x.csv"], "is a file"),
        (["{truth}", "{plain}", "--json", "{folder}/a", "--csv", "{folder}/a"], "--json writes"),
        (["{truth}", "{plain}", "--figures", "{plain}"], "is a file"),
        (["{truth}", "{plain}", "--area", "tiny=0:inf"], "NAME=LOW:HIGH"),
        (["{truth}", "{plain}", "--area", "all=0:9"], "none of them 'all'"),
        (["{truth}", "{plain}", "--config", "plian=x.py"], "plian"),
        (["{truth}", "{plain}", "--config", "plain=mmkd::x.py"], "mmkd has no config 'x.py'"),
        (["{truth}", "{plain}", "{plain}"], "given twice"),
        (["{truth}", "run=epoch_1.pth"], "--images"),
        (["{truth}", "run=epoch_1.pth", "--images", "."], "epoch_1.pth"),
        (["{truth}", "{plain}", "--backend", "faster", "--resamples", "5"], "matches"),
    ],
)
def test_bad_input_ends_with_a_message(
    files: dict[str, Path], arguments: list[str], message: str
) -> None:
    before = {name: file.read_bytes() for name, file in files.items()}
    places = {**files, "folder": files["truth"].parent}
    assert message in refused(*(argument.format(**places) for argument in arguments))
    assert before == {name: file.read_bytes() for name, file in files.items()}


def test_names_of_runs(tmp_path: Path) -> None:
    given_files = [
        "mine=a/b.json",
        "a/b.bbox.json",
        "work_dirs/plain_seed3/detections.bbox.json",
        "runs/x/weights/last.pt",
        "work_dirs/r50/epoch_12.pth",
        "runs/val/predictions.json",
    ]
    names = [each.name for each in parse_runs(given_files)]
    assert names == ["mine", "b", "plain", "x", "r50", "val"]
    odd = scenes.write(tmp_path, "a=b.json", [])
    assert parse_runs([str(odd)])[0].file == odd


def test_files_that_only_share_their_name_are_no_seeds() -> None:
    for wrong in (["a/test.bbox.json", "b/test.bbox.json"], ["x=a.json", "x.json"]):
        with pytest.raises(InputError, match="NAME=FILE"):
            parse_runs(wrong)
    for arguments, names in (
        (["v1.0.json", "v1.1.json"], ["v1.0", "v1.1"]),
        (["x=a.json", "x=b.json"], ["x", "x"]),
        (["w/plain_seed0/last.pt", "w/plain_seed1/last.pt"], ["plain", "plain"]),
    ):
        assert [each.name for each in parse_runs(arguments)] == names


def test_figures_are_not_overwritten(files: dict[str, Path], tmp_path: Path) -> None:
    mine = tmp_path / "classes.png"
    mine.write_text("mine")
    arguments = (files["truth"], files["plain"], "--figures", tmp_path)
    assert "classes.png exists" in refused(*arguments)
    assert mine.read_text() == "mine"
    assert run(*arguments, "--force").exit_code == 0
    assert mine.read_bytes().startswith(b"\x89PNG")


def test_doubts_about_a_file_are_said(files: dict[str, Path], tmp_path: Path) -> None:
    found = [each for each in json.loads(files["plain"].read_text()) if each["image_id"] < 50]
    for each in found:
        each["category_id"] = 1  # an id of the annotation file, and the first or second class
    result = run(files["truth"], scenes.write(tmp_path, "few.json", found))
    text = " ".join(result.stdout.split())
    assert "would also fit" in text and "--category-ids" in text
    assert "10 of 20 images without detections" in text
    assert "images without" not in run(files["truth"], files["plain"]).stdout


def test_options_with_equals_signs() -> None:
    assert parse_areas(["low=0:10.5", "high=10.5:1e10"]) == {
        "all": (0, 1e10), "low": (0, 10.5), "high": (10.5, 1e10)
    }  # fmt: skip
    assert parse_pairs("config", "NAME=FILE", ["a=x/y.py"]) == {"a": Path("x/y.py")}
    for wrong in ("low", "low=3", "low=a:b", "=1:2"):
        with pytest.raises(InputError):
            parse_areas([wrong])


@st.composite
def texts(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """An annotation and a detection file, one or both of them spoiled."""
    truth = scenes.truth_of(3, 2)
    contents = [truth, scenes.found_in(truth, 3)[:6]]
    files = []
    for content in contents:
        for _ in range(draw(st.integers(0, 2))):
            content = spoiled(draw, content)
        text = json.dumps(content).encode()
        if draw(st.integers(0, 9)) == 0:
            cut = draw(st.integers(0, len(text)))
            text = text[:cut] + draw(st.binary(max_size=3)) + text[cut + draw(st.integers(0, 9)) :]
        files.append(text)
    return files[0], files[1]


@settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(texts())
def test_spoiled_files_give_a_message_or_a_result(
    tmp_path_factory: pytest.TempPathFactory, texts: tuple[bytes, bytes]
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    names = ("truth.json", "found.json")
    for name, text in zip(names, texts, strict=True):
        (folder / name).write_bytes(text)
    out = folder / "out.json"
    result = run(*(folder / name for name in names), "--resamples", 2, "--json", out)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    if result.exit_code:
        assert result.exit_code == 2
        assert result.stderr.startswith("mmkd eval: ") and any(n in result.stderr for n in names)
        return
    value = json.loads(out.read_text())["runs"]["found"]["metrics"]["mAP"]["mean"]
    assert value is None or (math.isfinite(value) and 0 <= value <= 100)
