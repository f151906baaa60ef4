"""What tables, CSV and JSON hold equals the comparison."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from helpers import scenes
from mmkd.evaluation.coco_files import read_annotations, read_detections
from mmkd.evaluation.comparison import Comparison, Run, compare_runs
from mmkd.evaluation.intervals import Estimate
from mmkd.report.exports import as_csv, as_json
from mmkd.report.sentences import conclusions, gain_title, tiles, verdict
from mmkd.report.tables import comparison_tables, metric_table
from mmkd.report.terminal import markdown_tables, rich_table


def compared(folder: Path, names: tuple[str, ...], resamples: int = 50) -> Comparison:
    truth = scenes.truth_of(1, 20)
    truth["categories"][0]["name"] = "a|b [red]"
    annotations = read_annotations(scenes.write(folder, "truth.json", truth))
    runs = []
    for index, name in enumerate(names):
        found = scenes.found_in(truth, index, noise=0.3 if name == "plain" else 0.1)
        file = scenes.write(folder, f"{index}.json", found)
        runs.append(Run(name, read_detections(file, annotations)))
    return compare_runs(annotations, runs, resamples=resamples)


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    names = ("plain", "plain", "distilled", "distilled", "teacher")
    return compared(tmp_path_factory.mktemp("tables"), names)


def test_markdown_is_a_table_of_the_figures(comparison: Comparison) -> None:
    text = markdown_tables(comparison)
    rows = [[c.strip() for c in line.replace("\\|", "/").strip("|").split("|")]
            for line in text.splitlines() if line.startswith("|")]  # fmt: skip
    assert rows[0] == [
        "metric", "distilled - plain", "plain", "distilled", "teacher", "teacher - plain"
    ]  # fmt: skip
    assert set("".join(rows[1])) <= set("-:")
    [mean] = [row for row in rows if row[0] == "mAP"]
    group = comparison.group("distilled")
    score, gain = group.metrics["mAP"], group.differences["mAP"]
    assert mean[3] == f"{score.mean:.1f} ± {score.spread:.1f}"
    assert mean[1] == f"{gain.value:+.1f} [{gain.low:+.1f}, {gain.high:+.1f}]"
    assert any(row[0] == "a/b [red]" for row in rows)
    assert all(len(row) in (6, 7) for row in rows)  # figures and classes; errors
    [classless] = [row for row in rows if row[0] == "class 90"]
    assert set(classless[1:]) == {"–"}
    assert "a|b" not in markdown_tables(comparison, classes=False)


def test_what_each_arm_changes_stands_right_after_the_name(tmp_path: Path) -> None:
    names = ("plain", "first arm", "second arm", "teacher")
    comparison = compared(tmp_path, names, resamples=0)
    metrics, classes, errors = comparison_tables(comparison)
    for table, first in ((metrics, "metric"), (classes, "class")):
        assert [column.heading for column in table.columns] == [
            first, "first arm − plain", "second arm − plain", *names, "teacher − plain"
        ]  # fmt: skip
        assert table.numeric == [False, *[True] * 7]
    for row, name in zip(metrics.rows, comparison.groups[0].metrics, strict=True):
        shown = [cell.value for cell in row[1:]]
        groups = [comparison.group(each) for each in names]
        changes = [groups[index].differences[name].value for index in (1, 2, 3)]
        expected = [*changes[:2], *(group.metrics[name].mean for group in groups), changes[2]]
        assert shown == pytest.approx(expected, nan_ok=True)
    costs = [f"{name}, AP50 points" for name in names]
    counts = [f"{name}, count" for name in names]
    assert [column.heading for column in errors.columns] == ["type of error", *costs, *counts]
    [missed] = [row for row in errors.rows if row[0].text == "missed"]
    found = [comparison.group(name).errors["missed"] for name in names]
    values = [*(cost for _, cost in found), *(count for count, _ in found)]
    assert [cell.value for cell in missed[1:]] == values


def test_the_terminal_shows_the_same(comparison: Comparison) -> None:
    console = Console(file=io.StringIO(), width=200)
    for table in comparison_tables(comparison):
        console.print(rich_table(table))
    text = console.file.getvalue()
    gain = comparison.group("distilled").differences["AP50"]
    assert f"{gain.value:+.1f} [{gain.low:+.1f}, {gain.high:+.1f}]" in text
    assert "a|b [red]" in text
    assert "2 seeds" in text and "50 resamples" in text
    count, cost = comparison.group("plain").errors["background"]
    assert f"{count:,.0f}" in text and f"{cost:+.1f}" in text


def test_csv_holds_every_figure(comparison: Comparison) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(comparison))))
    figures = {(row["run"], row["kind"], row["name"]): row for row in rows}
    for group in comparison.groups:
        for kind, scores in (("metric", group.metrics), ("class", group.classes)):
            for name, score in scores.items():
                row = figures[group.name, kind, name]
                if math.isnan(score.mean):
                    assert row["mean"] == ""
                    continue
                assert float(row["mean"]) == score.mean
        for name, difference in group.differences.items():
            text = figures[group.name, "metric", name]["difference"]
            assert text == ("" if math.isnan(difference.value) else repr(difference.value))
        for kind, (count, cost) in group.errors.items():
            assert float(figures[group.name, "error count", kind]["mean"]) == count
            assert float(figures[group.name, "error AP50", kind]["mean"]) == cost


def test_json_is_plain_and_complete(comparison: Comparison) -> None:
    # allow_nan=False: other languages' readers refuse NaN.
    stored = json.loads(json.dumps(as_json(comparison), allow_nan=False))
    assert stored["annotations_sha256"] == comparison.annotations.digest
    assert stored["images"] == 20 and stored["baseline"] == "plain"
    run = stored["runs"]["distilled"]
    group = comparison.group("distilled")
    assert run["metrics"]["mAP"]["values"] == group.metrics["mAP"].values
    assert run["metrics"]["mAP"]["difference"]["high"] == group.differences["mAP"].high
    assert run["classes"]["class 90"]["mean"] is None
    assert run["lead_closed"]["value"] == group.lead_closed.value
    assert stored["runs"]["plain"]["metrics"]["mAP"]["difference"] is None
    assert len(run["detections"]) == 2


def test_conclusions_say_what_is_more_than_noise(comparison: Comparison) -> None:
    [sentence] = conclusions(comparison)
    gain = comparison.group("distilled").differences["mAP"]
    assert f"distilled against plain: {gain.value:+.1f} mAP points" in sentence
    assert f"95% interval over seeds and images {gain.low:+.1f} to {gain.high:+.1f}" in sentence
    assert ("holds 0" in sentence) == (gain.low <= 0 <= gain.high)
    own, base = (comparison.group(n).metrics["mAP"].values for n in ("distilled", "plain"))
    assert f"; seed by seed {own[0] - base[0]:+.1f}, {own[1] - base[1]:+.1f})" in sentence
    assert "other seeds" not in sentence and "unclear" not in sentence


def test_seeds_that_disagree_are_unclear_whatever_the_interval(comparison: Comparison) -> None:
    change = Estimate(0.9, 0.2, 1.7, (-1.3, 3.1), True)
    distilled = comparison.group("distilled")
    changed = replace(distilled, differences={**distilled.differences, "mAP": change})
    groups = [changed if each is distilled else each for each in comparison.groups]
    doubtful = replace(comparison, groups=groups)
    [sentence] = conclusions(doubtful)
    assert "; seed by seed -1.3, +3.1)" in sentence and "unclear: the seeds disagree" in sentence
    assert verdict(doubtful, {}, {}).startswith("Unclear: Distillation adds 0.9 mAP to plain ")
    assert verdict(doubtful, {}, {}).endswith("2 seeds: −1.3, +3.1); the seeds disagree in sign.")
    assert gain_title(doubtful) == "Distillation adds +0.9 mAP, which is unclear"
    [cell] = [row[1] for row in metric_table(doubtful).rows if row[0].text == "mAP"]
    assert cell.verdict == "unclear"
    assert any(tile.note.startswith("unclear, ") for tile in tiles(doubtful))


def test_one_run_alone(tmp_path: Path) -> None:
    comparison = compared(tmp_path, ("mine",), resamples=0)
    score = comparison.group("mine").metrics["mAP"].mean
    assert conclusions(comparison) == [f"mine: {score:.1f} mAP."]
    assert "resamples" not in markdown_tables(comparison)


def test_one_seed_says_little_of_others(tmp_path: Path) -> None:
    [sentence] = conclusions(compared(tmp_path, ("plain", "distilled")))
    assert sentence.endswith("; other seeds may differ by more.")
