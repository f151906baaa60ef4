"""``mmkd analyze``: figures and tables of what was recorded."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from mmkd.cli import app
from mmkd.dynamics_file import DynamicsFile


def call(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["analyze", *map(str, arguments)])
    return done.exit_code, done.output


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two seeds of one run, and another run without a projector."""
    for run, seed in (("a", 0), ("a", 1), ("b", 0)):
        folder = tmp_path / f"{run}_seed{seed}"
        folder.mkdir()
        file = DynamicsFile(folder / "dynamics.csv")
        for step in (1, 2, 4):
            value = 0.1 * step + 0.1 * seed
            own = dict(cka=value, condition_number=3.0 * step)
            if run == "a":
                names = ("singular_min", "singular_25", "singular_50", "singular_75")
                own |= {name: step * place for place, name in enumerate(names)}
                own["singular_max"] = step * 9.0
            val = dict(cka=value / 2)
            file.add(step, dict(train=dict(low=own, high=own), val=dict(low=val, high=val)))
    return tmp_path


def table(file: Path) -> list[dict[str, str]]:
    with file.open() as stream:
        return list(csv.DictReader(stream))


def test_figures_and_the_values_behind_them(runs: Path) -> None:
    status, text = call(
        runs / "a_seed0", runs / "a_seed1", f"other={runs / 'b_seed0'}", "--out", runs / "out"
    )
    assert status == 0, text
    out = runs / "out"
    assert {file.name for file in out.iterdir()} == {
        *(
            f"{name}.{ending}"
            for name in ("cka", "condition_number", "singular_values", "cka_map")
            for ending in ("png", "svg", "csv")
        ),
        "values.md",
    }
    assert "4 figures" in text
    for file in out.glob("*.png"):
        assert len(Image.open(file).convert("RGB").getcolors(2**20)) > 20
    rows = table(out / "cka.csv")
    # Every value, of each seed.
    assert len(rows) == 3 * 3 * 2 * 2
    assert rows[0] == dict(run="a", seed="0", step="1", images="train", term="low", cka="0.1")
    bands = table(out / "singular_values.csv")
    assert [row["50%"] for row in bands if row["term"] == "low"] == ["2.0", "4.0", "8.0"]
    assert {row["run"] for row in bands} == {"a"}
    # Over the seeds, of the images that were not trained on.
    [row] = [
        r
        for r in table(out / "cka_map.csv")
        if (r["run"], r["term"], r["step"]) == ("a", "low", "4")
    ]
    assert float(row["cka"]) == pytest.approx((0.4 + 0.5) / 2 / 2)


def test_the_last_values(runs: Path) -> None:
    call(runs / "a_seed0", runs / "a_seed1", runs / "b_seed0", "--out", runs / "out")
    text = (runs / "out" / "values.md").read_text()
    assert "## low, at the end" in text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    heads = ["a, train images", "a, val images", "b, train images", "b, val images"]
    assert ["measure", *heads] in rows
    assert rows.count(["cka", "0.45 ± 0.071", "0.225 ± 0.035", "0.4", "0.2"]) == 2
    assert "singular" not in text


def test_drawn_twice_is_the_same(runs: Path) -> None:
    files = []
    for name in ("one", "two"):
        call(runs / "a_seed0", "--out", runs / name)
        files.append({file.name: file.read_bytes() for file in (runs / name).iterdir()})
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such folder, or dynamics.csv"),
        (["empty"], "empty: nothing was recorded, there is no dynamics.csv. A training records"),
        (["a_seed0", "a_seed0/dynamics.csv"], "is given twice"),
        (["x=broken.csv"], "expected a file that a DynamicsHook has written"),
        (["a_seed0", "--out", "broken.csv"], "expected a folder to write"),
    ],
)
def test_what_it_refuses(
    runs: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs)
    (runs / "empty").mkdir()
    (runs / "broken.csv").write_text("a,b\n1,2\n")
    status, text = call(*arguments)
    assert status == 2
    assert message in " ".join(text.split())


def test_matrices_are_drawn(runs: Path) -> None:
    for name, scale in (("a_seed0", 1.0), ("b_seed0", -0.5)):
        file = DynamicsFile(runs / name / "dynamics.csv", done=4)
        matrix = scale * torch.eye(3, 5)
        measures = dict(cka=0.5, cross_correlation_matrix=matrix)
        file.add(5, dict(train=dict(low=measures), val=dict(low=measures, high=measures)))
    status, text = call(runs / "a_seed0", runs / "b_seed0", "--out", runs / "out")
    assert status == 0, text
    rows = table(runs / "out" / "cross_correlation_matrix.csv")
    # Of validation images; two terms, two runs.
    assert len(rows) == 4 * 3 * 5
    assert {row["images"] for row in rows} == {"val"}
    values = {(r["run"], r["row"], r["column"]): float(r["correlation"]) for r in rows}
    assert (values["a", "1", "1"], values["b", "1", "1"], values["a", "0", "1"]) == (1, -0.5, 0)
    assert (runs / "out" / "cross_correlation_matrix.png").is_file()
