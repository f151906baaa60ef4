"""Finished runs in tables, files and a page, all from one comparison."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from mmkd.errors import InputError
from mmkd.evaluation import comparison as comparison_module
from mmkd.report import inputs as inputs_module
from mmkd.report.results import check_out, compare_results, score_lines, write_results
from mmkd.report.tables import result_table
from mmkd.report.terminal import markdown_table
from mmkd.work_dirs.run_result import RunResult, is_finished


def result(name: str, seed: int = 0, **settings: Any) -> RunResult:
    return RunResult(
        name=name,
        seed=seed,
        scores=settings.pop("scores", {"top1": 50.0}),
        parameters=1_500_000,
        training_seconds=settings.pop("seconds", 10.0),
        checkpoint="w.pth",
        work_dir=settings.pop("work_dir", name),
        **settings,
    )


def cells(lines: Sequence[str]) -> list[list[str]]:
    """Of a table in Markdown, without the line below its headings."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert set("".join(rows.pop(1))) == {"-"}
    return rows


def test_table_without_boxes() -> None:
    runs = [
        result("plain", 0, scores={"top1": 50.0}),
        result("plain", 1, scores={"top1": 52.0}),
        result("distilled", 0, scores={"top1": 54.0}),
        result("teacher", 0, scores={"top1": 60.0}, seconds=0.0),
    ]
    assert cells(markdown_table(result_table(runs)).splitlines()) == [
        ["run", "seeds", "top1", "top1 over plain", "parameters", "training, s"],
        ["plain", "2", "51.0 ± 1.4", "", "1.50 M", "10.0 ± 0.0"],
        ["distilled", "1", "54.0", "+3.0", "1.50 M", "10.0"],
        ["teacher", "1", "60.0", "+9.0", "1.50 M", ""],
    ]


def finish(run: RunResult) -> RunResult:
    """Leaves in the run's folder what its recipe would."""
    record = dict(fingerprint="f", result=asdict(run))
    (Path(run.work_dir) / "result.json").write_text(json.dumps(record))
    return run


@pytest.fixture
def runs(tmp_path: Path) -> list[RunResult]:
    """Of four objects on four images, plain finds one, distilled two, the teacher all."""
    truth = dict(
        images=[dict(id=i, file_name=f"{i}.png", width=50, height=50) for i in range(4)],
        categories=[dict(id=1, name="thing")],
        annotations=[
            dict(id=i + 1, image_id=i, category_id=1, bbox=[5, 5, 20, 20], area=400, iscrowd=0)
            for i in range(4)
        ],
    )
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    runs = []
    for name, found in (("plain", 1), ("distilled", 2), ("teacher", 4)):
        folder = tmp_path / name
        folder.mkdir()
        boxes = [
            dict(image_id=i, category_id=1, bbox=[5, 5, 20, 20], score=0.9) for i in range(found)
        ]
        (folder / "detections.bbox.json").write_text(json.dumps(boxes))
        # COCO's 101 recalls from 0 to 1, of which found / 4 are reached with precision 1.
        runs.append(
            finish(
                result(
                    name,
                    scores={"mAP": 100 * (25 * found + 1) / 101},
                    annotations=str(tmp_path / "truth.json"),
                    work_dir=str(folder),
                    iterations=5,
                )
            )
        )
    return runs


def test_table_with_boxes(runs: list[RunResult], tmp_path: Path) -> None:
    compared = compare_results(runs, resamples=0)
    assert compared.comparison is not None
    distilled = compared.comparison.group("distilled")
    assert distilled.metrics["mAP"].mean == pytest.approx(100 * 51 / 101)
    assert distilled.step_seconds == 2.0
    lines = score_lines(compared)
    assert cells(lines[: lines.index("")])[1:] == [
        ["plain", "1", "25.7", "", "", "1.50 M", "10.0"],
        ["distilled", "1", "50.5", "+24.8", "33%", "1.50 M", "10.0"],
        ["teacher", "1", "100.0", "+74.3", "", "1.50 M", "10.0"],
    ]
    text = (tmp_path / "truth.json").read_text()
    (tmp_path / "other.json").write_text(text.replace('"thing"', '"other"'))
    other = finish(replace(runs[1], annotations=str(tmp_path / "other.json")))
    with pytest.raises(InputError, match="evaluated on different annotation files"):
        compare_results([runs[0], other])


def test_one_comparison_serves_all_that_is_written(
    runs: list[RunResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made: list[comparison_module.Comparison] = []
    read: list[Path] = []

    def compare(*given: Any, **options: Any) -> comparison_module.Comparison:
        made.append(comparison_module.compare_runs(*given, **options))
        return made[-1]

    def read_file(file: Path, *rest: Any) -> Any:
        read.append(file)
        return read_detections(file, *rest)

    read_detections = inputs_module.read_detections
    monkeypatch.setattr(inputs_module, "compare_runs", compare)
    monkeypatch.setattr(inputs_module, "read_detections", read_file)
    compared = compare_results(runs, resamples=30)
    report = write_results(compared, tmp_path, title="Four objects", notes=["By hand."])
    assert len(made) == 1 and compared.comparison is made[0]
    assert read == [run.detections for run in runs]
    gain = made[0].group("distilled").differences["mAP"]
    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored["runs"] == [asdict(run) for run in runs]
    assert stored["comparison"]["runs"]["distilled"]["metrics"]["mAP"]["difference"] == dict(
        value=gain.value,
        low=gain.low,
        high=gain.high,
        interval_over="images",
        seeds=[],
        seeds_disagree=False,
    )
    interval = f"[{gain.low:+.1f}, {gain.high:+.1f}]"
    text = (tmp_path / "results.md").read_text()
    assert text.startswith("# Four objects\n\n| run")
    # In the table of the runs and in that of the metrics.
    for row in ("distilled", "mAP"):
        [line] = re.findall(rf"^\| {row} .*$", text, re.M)
        assert f"+24.8 {interval}" in line
    assert "\n- By hand.\n" in text
    assert f"+24.8 {interval}" in capsys.readouterr().out
    page = report.read_text()
    assert f"{gain.low:+.1f} to {gain.high:+.1f}" in page
    assert '<h1 id="verdict">Unclear: Distillation adds 24.8 mAP to plain (95% interval ' in page


@pytest.mark.parametrize("name", ["results.md", "results.json", "gap.png"])
def test_files_of_something_else_are_not_replaced(
    name: str, runs: list[RunResult], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    check_out(out, ["gap.png"])
    (out / name).write_text("mine")
    with pytest.raises(InputError, match="not of a comparison of mmkd's"):
        check_out(out, ["gap.png"])
    # Next to finished runs they are a comparison's.
    shutil.copytree(runs[0].work_dir, out / "plain")
    check_out(out, ["gap.png"])
    (out / "report.html").write_text("mine")
    with pytest.raises(InputError, match="no report of mmkd's"):
        check_out(out)


@pytest.mark.parametrize("content", [None, "mine", "[]", "{}", "[[1]]", "3"])
def test_a_finished_run_is_told_by_its_result(
    content: str | None, runs: list[RunResult], tmp_path: Path
) -> None:
    assert is_finished(Path(runs[0].work_dir))
    if content is not None:
        (tmp_path / "result.json").write_text(content)
    assert not is_finished(tmp_path)


def test_what_a_training_has_warned_of_is_among_the_notes(
    runs: list[RunResult], tmp_path: Path
) -> None:
    file = Path(runs[1].work_dir) / "distill_warnings.json"
    said = [dict(term="a", kind="still", text="terms.a: its distance does not fall")]
    file.write_text(json.dumps(said))
    compared = compare_results(runs, resamples=0)
    page = write_results(compared, tmp_path, title="Four objects", notes=["By hand."]).read_text()
    expected = "distilled: terms.a: its distance does not fall"
    assert f"\n- {expected}\n- By hand.\n" in (tmp_path / "results.md").read_text()
    verdict, scores = page.index('<h1 id="verdict">'), page.index('<section id="scores"')
    assert expected in page[verdict:scores]


@pytest.mark.parametrize("content", ["mine", "{}x", "3", '[{"text": 3}]', "[1]"])
def test_warnings_that_cannot_be_read_are_a_note(content: str, runs: list[RunResult]) -> None:
    (Path(runs[1].work_dir) / "distill_warnings.json").write_text(content)
    inputs = compare_results(runs, resamples=0).inputs
    assert inputs.warnings == []
    found = ["distill_warnings.json cannot be read" in note for note in inputs.notes]
    assert any(found)
