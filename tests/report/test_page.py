"""The report as a file: what it says, what it leaves out, and what it refuses."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from helpers.examinations import examination
from helpers.report_inputs import (
    CLASSES,
    Inputs,
    detections,
    make_inputs,
    mmengine_work_dir,
    ultralytics_work_dir,
)
from mmkd.doctor.file import write_examination
from mmkd.errors import InputError
from mmkd.evaluation import comparison
from mmkd.evaluation.coco import evaluate
from mmkd.evaluation.coco_files import read_annotations, read_detections
from mmkd.report import inputs as inputs_module
from mmkd.report import write_report
from mmkd.report.curves import MAX_POINTS, curve_charts, curve_looks
from mmkd.report.run_tables import environment_table, setting_table, teacher_table
from mmkd.report.style import run_styles
from mmkd.work_dirs import Curve, WorkDir, read_work_dir


class Page(HTMLParser):
    """A page's tables by their ids, its text outside of scripts, and its scripts."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.source = file.read_text("utf-8")
        self.tables: dict[str, list[list[str]]] = {}
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self._open: list[str] = []
        self._rows: list[list[str]] = []
        self.feed(self.source)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.elements.append((tag, found))
        if tag not in ("meta", "link", "br", "input"):
            self._open.append(tag)
        if tag == "table":
            self._rows = self.tables[str(found["id"])] = []
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th"):
            self._rows[-1].append("")
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "script" in self._open:
            self.scripts[-1] += data
        elif "style" not in self._open:
            self.texts.append(data)
            if {"td", "th"} & set(self._open):
                self._rows[-1][-1] += " ".join(data.split())

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @property
    def title(self) -> str:
        return re.search(r'<h1 id="verdict">(.*?)</h1>', self.source, re.S)[1]

    @property
    def curves(self) -> dict[str, Any]:
        """The charts of curves by their keys."""
        return json.loads(self.scripts[0])["charts"]

    def figure(self, key: str) -> str:
        """The SVG of a figure."""
        found = re.search(
            rf'<figure class="card" id="figure-{key}">.*?</figure>', self.source, re.S
        )
        assert found is not None, key
        return found[0]

    def letters(self, key: str) -> list[str]:
        """What is written in a figure."""
        return [
            html.unescape(text) for text in re.findall(r"<text.*?>(.*?)</text>", self.figure(key))
        ]

    def column(self, table: str, heading: str) -> dict[str, str]:
        headings, *rows = self.tables[f"table-{table}"]
        return {row[0]: row[headings.index(heading)] for row in rows}

    def attributes(self, tag: str, name: str) -> list[str]:
        return [str(found[name]) for each, found in self.elements if each == tag and name in found]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return make_inputs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def file(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "new" / "report.html"
    return write_report(inputs.work_dirs, out, resamples=50)


@pytest.fixture(scope="module")
def page(file: Path) -> Page:
    return Page(file)


def mean_average_precision(inputs: Inputs, work_dir: Path) -> float:
    truth = read_annotations(inputs.annotations)
    name = "predictions.json" if "distilled" in work_dir.name else "detections.bbox.json"
    return evaluate(truth, read_detections(work_dir / name, truth)).metrics["mAP"]


def test_verdict_and_table_are_the_evaluation(page: Page, inputs: Inputs) -> None:
    plain = [mean_average_precision(inputs, each) for each in inputs.plain]
    base, distilled = sum(plain) / 2, mean_average_precision(inputs, inputs.distilled)
    gain = distilled - base
    assert gain > 1
    assert page.title.startswith(f"Distillation adds {gain:.1f} mAP to plain (95% interval ")
    # Of the teacher's lead over two seeds that lie far apart, nothing is said.
    assert page.title.endswith(" over images, one seed).")
    assert page.column("scores", "distilled")["mAP"].startswith(f"{distilled:.1f}")
    assert page.column("scores", "distilled − plain")["mAP"].startswith(f"+{gain:.1f}")
    assert page.column("scores", "plain")["mAP"].startswith(f"{base:.1f} ± ")
    assert list(page.column("classes", "teacher")) == CLASSES
    assert page.column("scores", "teacher")["AP_large"] == "–no objects"


def test_runs_come_in_order_with_what_is_known_of_them(page: Page) -> None:
    assert page.column("runs", "role") == {
        "plain": "baseline",
        "distilled": "run",
        "teacher": "teacher",
    }
    assert page.column("runs", "seeds") == {"plain": "0, 1", "distilled": "0", "teacher": "0"}
    assert page.column("runs", "parameters")["teacher"] == "40.00 M"
    assert page.column("runs", "parameters")["distilled"] == "–"
    assert page.column("runs", "framework")["distilled"] == "ultralytics"
    assert page.column("runs", "checkpoint")["plain"] == "epoch_3.pth"
    assert page.column("runs", "time of a step")["plain"] == "100 ms"


def test_settings_show_differences_only(inputs: Inputs) -> None:
    runs = {p.name: [read_work_dir(p)] for p in (inputs.plain[0], inputs.plain[1], inputs.teacher)}
    table = setting_table(runs)
    assert table is not None
    # Neither seeds nor what lies in the run's own folder, nor the shared data.
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["model.backbone.depth", "18", "18", "50"]
    ]
    assert setting_table({name: of_run for name, of_run in runs.items() if "plain" in name}) is None


def test_every_curve_has_a_line_for_each_run(page: Page) -> None:
    charts = {
        title: page.curves[key]
        for title, key in zip(
            re.findall(r"<figcaption>(.*?)</figcaption>\s*<div class=\"chart\"", page.source),
            page.attributes("div", "data-chart"),
            strict=True,
        )
    }
    # Where one trainer counts iterations and the other epochs, there are two charts.
    assert len(charts["task_loss by epoch"]["lines"]) == 1
    assert len(charts["task_loss by iteration"]["lines"]) == 3
    first = charts["task_loss by iteration"]["lines"][0]
    assert (first["name"], first["run"]) == ("plain, seed 0", 0)
    assert (first["x"][0], first["y"][:2]) == (1, [3, 1.5])
    assert charts["metrics/mAP50-95(B)"]["lines"][0]["y"] == [10, 20, 30]
    assert {"loss_cls", "lr", "train/kd_neck", "lr/pg0", "coco/bbox_mAP"} == set(charts) & {
        "loss_cls", "lr", "train/kd_neck", "lr/pg0", "coco/bbox_mAP"
    }  # fmt: skip


def test_figures_are_those_of_the_comparison(page: Page, inputs: Inputs) -> None:
    scores = [mean_average_precision(inputs, each) for each in (inputs.distilled, inputs.teacher)]
    plain = sum(mean_average_precision(inputs, each) for each in inputs.plain) / 2
    assert [text for text in page.letters("map") if re.fullmatch(r"\d+\.\d", text)] == [
        f"{score:.1f}" for score in (plain, *scores)
    ]
    assert set(re.findall(r'data-run="(\d)"', page.figure("classes-0"))) == {"0", "1", "2"}
    table = page.column("classes", "distilled − plain")
    gains = [text for text in page.letters("classes-0") if re.match(r"[+-]\d", text)]
    assert sorted(gains) == sorted(text.split(".")[0] + "." + text.split(".")[1][0]
                                   for text in table.values())  # fmt: skip
    keys = re.findall(r'id="figure-(.*?)"', page.source)
    assert len(keys) == len(set(keys)) == 13
    names = page.attributes("svg", "id") + [
        str(found["id"]) for _, found in page.elements if "id" in found
    ]
    assert len(names) == len(set(names))


def test_the_page_is_light(page: Page) -> None:
    photos = sum(map(len, re.findall(r'href="data:image/jpeg[^"]*"', page.source)))
    weight = len(page.source.encode()) - photos
    # The page's own parts and the library for the curves; a figure takes some 20 kB.
    assert weight < 600_000
    assert "Copyright (c) 2022 Leon Sorokin" in page.source


def curves_of(*curves: Curve, name: str = "plain") -> WorkDir:
    return WorkDir(Path(name), "mmengine", name, 0, {}, {}, {}, list(curves), *[None] * 6, notes=[])


def test_long_curves_are_thinned_evenly_and_keep_their_ends() -> None:
    points = [(float(i), i / 3) for i in range(10_001)]
    run = curves_of(Curve("loss", "task loss", "iteration", points))
    [chart] = curve_charts([run], run_styles({"plain": "baseline"}), "task loss")
    [line] = chart.as_json()["lines"]
    assert len(line["x"]) == MAX_POINTS == len(line["y"])
    assert (line["x"][0], line["x"][-1], line["y"][-1]) == (0, 10_000, 3333)
    steps = [b - a for a, b in zip(line["x"], line["x"][1:], strict=False)]
    assert max(steps) - min(steps) <= 1
    assert "plain from 0 to 3333" in chart.description


def test_epochs_and_iterations_are_not_mixed() -> None:
    runs = [
        curves_of(Curve("loss", "task loss", "iteration", [(1, 2.0)])),
        curves_of(Curve("loss", "task loss", "epoch", [(1, 2.0)]), name="other"),
    ]
    charts = curve_charts(runs, run_styles({"plain": "baseline", "other": "run"}), "task loss")
    assert [chart.as_json()["step"] for chart in charts] == ["iteration", "epoch"]


def test_curves_have_the_looks_of_their_runs() -> None:
    styles = run_styles({"plain": "baseline", "distilled": "run", "teacher": "teacher"})
    looks = curve_looks(styles.values())
    # In pixels, of lines that are 1.5 wide.
    assert [each["dash"] for each in looks] == [[7.5, 3.0], [], [1.5, pytest.approx(1.8)]]
    assert [each["marker"] for each in looks] == [each.marker_path for each in styles.values()]


def test_names_are_escaped(page: Page) -> None:
    assert "</script><b>" not in page.source
    assert "<i>" not in page.source
    assert page.column("classes", "teacher").keys() == set(CLASSES)
    # Data, uPlot, and the page's own: a class name has ended none early.
    assert len(page.scripts) == 3
    # Names of classes that are numbers stay names.
    assert set(CLASSES) <= set(page.letters("classes-0"))


def test_page_needs_nothing_else(page: Page) -> None:
    sources = [
        value for tag in ("img", "image", "script", "link", "use", "iframe", "a")
        for name in ("src", "href") for value in page.attributes(tag, name)
    ]  # fmt: skip
    assert sources
    assert all(source.startswith(("#", "data:")) for source in sources)
    photos = [source for source in sources if source.startswith("data:image/jpeg")]
    assert len(photos) == len(page.attributes("article", "data-boxes")) == 6


def test_same_input_same_bytes(inputs: Inputs, file: Path, tmp_path: Path) -> None:
    again = write_report(inputs.work_dirs, tmp_path / "again.html", resamples=50)
    assert again.read_bytes() == file.read_bytes()


def test_report_is_replaced_and_nothing_else(inputs: Inputs, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    shutil.copy(file, out)
    write_report(inputs.plain[:1], out, resamples=0)
    assert "Distillation" not in Page(out).title
    out.write_text("<html>my own</html>")
    with pytest.raises(InputError, match="is no report of mmkd's: name another file"):
        write_report(inputs.plain[:1], out)
    assert out.read_text() == "<html>my own</html>"
    with pytest.raises(InputError, match="found a folder"):
        write_report(inputs.plain[:1], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_one_run(inputs: Inputs, tmp_path: Path) -> None:
    page = Page(write_report(inputs.plain[:1], tmp_path / "report.html", resamples=0))
    score = mean_average_precision(inputs, inputs.plain[0])
    assert page.title == f"plain reaches {score:.1f} mAP (one seed)."
    assert "table-settings" not in page.tables
    assert "Training dynamics" not in page.text
    assert page.tables["table-scores"][0] == ["metric", "plain"]


def test_dynamics_where_they_were_logged(tmp_path: Path) -> None:
    run = mmengine_work_dir(tmp_path / "distilled_seed0", is_distilled=True)
    page = Page(write_report([run], tmp_path / "report.html"))
    assert "Training dynamics" in page.text
    assert page.curves["dynamics-0"]["lines"][0]["y"][0] == 1
    assert "loss_distill_neck" in page.text
    assert "distill_ratio" in page.text


def test_what_the_doctor_found(tmp_path: Path) -> None:
    runs = [mmengine_work_dir(tmp_path / f"distilled_seed{seed}") for seed in range(2)]
    write_examination(runs[1], examination())
    page = Page(write_report(runs, tmp_path / "report.html"))
    assert "Before the training" in page.text
    heading, row = page.tables["table-doctor"]
    assert heading[:2] == ["run", "term"]
    assert row[:2] == ["distilled", "neck"]
    assert row[heading.index("share")] == "98%"
    assert "A step: 100 ms alone" in page.text
    assert "error: terms.neck.weight : 98% of the gradient" in page.text
    # A damaged file costs no page.
    (runs[1] / "doctor.json").write_text("[]")
    page = Page(write_report(runs, tmp_path / "report.html"))
    assert "Before the training" not in page.text
    assert "doctor.json cannot be read" in page.text


def test_weights_and_shares_of_terms_have_charts_of_their_own(tmp_path: Path) -> None:
    run = mmengine_work_dir(tmp_path / "distilled_seed0", is_distilled=True)
    page = Page(write_report([run], tmp_path / "report.html"))
    for key, value in (("weight-0", 0.5), ("share-0", 0.25)):
        assert set(page.curves[key]["lines"][0]["y"]) == {value}
        assert f"distill_{key.removesuffix('-0')}_neck" in page.text
    assert "Weights of the terms" in page.text
    assert "Shares of the gradient at the student's features" in page.text


def test_classification(tmp_path: Path) -> None:
    runs = [
        mmengine_work_dir(tmp_path / f"{name}_seed{seed}", score="accuracy/top1", ends_at=value)
        for name, seed, value in [("plain", 0, 70), ("plain", 1, 72), ("distilled", 0, 73.5)]
    ]
    page = Page(write_report(runs, tmp_path / "report.html"))
    assert page.title == "distilled ends at accuracy/top1 73.5, 2.5 above plain (one seed)."
    assert page.tables["table-logged"] == [
        ["run", "score", "at the end", "highest"],
        ["plain", "accuracy/top1", "71.00", "71.00"],
        ["distilled", "accuracy/top1", "73.50", "73.50"],
    ]
    assert "No detections were found in the work dirs." in page.text
    assert "Where the runs disagree" not in page.text


def test_detections_without_annotations(inputs: Inputs, tmp_path: Path) -> None:
    page = Page(write_report([inputs.distilled], tmp_path / "report.html"))
    assert "name one by --annotations" in page.text
    assert page.title == "distilled ends at metrics/mAP50-95(B) 30 (one seed)."
    named = write_report(
        [inputs.distilled],
        tmp_path / "report.html",
        annotations=inputs.annotations,
        images=inputs.images,
        resamples=0,
    )
    score = mean_average_precision(inputs, inputs.distilled)
    assert Page(named).title == f"distilled reaches {score:.1f} mAP (one seed)."


def test_detections_from_elsewhere(inputs: Inputs, tmp_path: Path) -> None:
    other = tmp_path / "found.json"
    other.write_text("[]")
    page = Page(
        write_report(
            inputs.plain[:1], tmp_path / "r.html", detections={inputs.plain[0]: other}, resamples=0
        )
    )
    assert page.title == "plain reaches 0.0 mAP (one seed)."
    with pytest.raises(InputError, match="which is not reported"):
        write_report(inputs.plain[:1], tmp_path / "r.html", detections={inputs.plain[1]: other})


def test_run_without_detections_beside_others(inputs: Inputs, tmp_path: Path) -> None:
    lacking = mmengine_work_dir(tmp_path / "later_seed0")
    page = Page(write_report([inputs.plain[0], lacking], tmp_path / "r.html", resamples=0))
    assert "later, seed 0: no detection file, so it is not among the evaluated runs" in page.text
    assert page.tables["table-scores"][0] == ["metric", "plain"]
    assert len(page.tables["table-runs"]) == 3


def test_photos_that_are_missing_or_damaged(inputs: Inputs, tmp_path: Path) -> None:
    images = tmp_path / "photos"
    shutil.copytree(inputs.images, images)
    (images / "photo_1.png").unlink()
    (images / "photo_2.png").write_bytes(b"no photo")
    (images / "photo_3.png").write_bytes((inputs.images / "photo_3.png").read_bytes()[:60])
    (images / "photo_4.png").unlink()
    os.mkfifo(images / "photo_4.png")  # opened, it would be waited for
    page = Page(write_report(inputs.plain[:1], tmp_path / "r.html", images=images, resamples=0))
    assert f"No photo: {images}/photo_1.png is not there." in page.text
    assert f"No photo: {images}/photo_2.png is no image that can be read." in page.text
    assert f"No photo: {images}/photo_3.png is no image that can be read." in page.text
    assert f"No photo: {images}/photo_4.png is no image that can be read." in page.text
    assert len(page.attributes("image", "href")) == 2
    assert page.source.count('class="ground"') == 2 * 4


def other_annotations(inputs: Inputs, folder: Path, change: bool) -> Path:
    content = json.loads(inputs.annotations.read_text())
    if change:
        content["images"][0]["file_name"] = "another.png"
    file = folder / "other.json"
    file.write_text(json.dumps(content))
    return file


def run_on(annotations: Path, folder: Path) -> Path:
    config = f"val_evaluator = dict(ann_file={str(annotations)!r})"
    return mmengine_work_dir(folder / "other_seed0", config=config, found=detections({}))


def test_runs_on_different_annotation_files(inputs: Inputs, tmp_path: Path) -> None:
    other = other_annotations(inputs, tmp_path, change=True)
    run = run_on(other, tmp_path)
    with pytest.raises(InputError, match="different annotation files") as caught:
        write_report([inputs.plain[0], run], tmp_path / "r.html")
    assert str(other) in str(caught.value)
    assert str(inputs.annotations) in str(caught.value)
    assert not (tmp_path / "r.html").exists()
    # Whoever names the file has decided.
    write_report(
        [inputs.plain[0], run], tmp_path / "r.html", annotations=inputs.annotations, resamples=0
    )


def test_copy_of_the_annotation_file_is_the_same(inputs: Inputs, tmp_path: Path) -> None:
    run = run_on(other_annotations(inputs, tmp_path, change=False), tmp_path)
    page = Page(write_report([inputs.plain[0], run], tmp_path / "r.html", resamples=0))
    assert page.tables["table-scores"][0] == ["metric", "other − plain", "plain", "other"]


def test_bad_input(inputs: Inputs, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    with pytest.raises(InputError, match="at least one work dir"):
        write_report([], out)
    with pytest.raises(InputError, match="given twice"):
        write_report([inputs.plain[0], inputs.plain[0] / ".." / "plain_seed0"], out)
    with pytest.raises(InputError, match="expected the folder of the images"):
        write_report(inputs.plain, out, images=tmp_path / "nothing")
    with pytest.raises(InputError, match=r"nothing\.json"):
        write_report(inputs.plain, out, annotations=tmp_path / "nothing.json")
    with pytest.raises(InputError, match="holds no logs"):
        write_report([tmp_path], out)
    assert not out.exists()


def test_runs_that_would_be_the_same_seed(inputs: Inputs, tmp_path: Path) -> None:
    """Ultralytics calls every run's folder 'train'."""
    one, other = (tmp_path / project / "train" for project in ("p1", "p2"))
    for folder in (one, other):
        ultralytics_work_dir(folder, detections({}))
        (folder / "args.yaml").write_text("seed: 0\n")
    out = tmp_path / "r.html"
    with pytest.raises(InputError, match=r"both 'train' and of seed 0, .* NAME=") as caught:
        write_report([one, other], out)
    assert str(one) in str(caught.value) and str(other) in str(caught.value)
    with pytest.raises(InputError, match="both 'train'"):
        write_report([one, other], out, names={one: "train"})
    for folder in (one, other):
        (folder / "args.yaml").unlink()
    with pytest.raises(InputError, match="both 'train' and of unknown seeds"):
        write_report([one, other], out)
    assert not out.exists()
    apart = Page(write_report([one, other], out, names={other: "longer"}))
    assert apart.column("runs", "role") == {"train": "run", "longer": "run"}
    alike = Page(write_report([one, other], out, names={one: "a", other: "a"}))
    assert list(alike.column("runs", "role")) == ["a"]


def test_seeds_by_their_folders(tmp_path: Path) -> None:
    runs = [ultralytics_work_dir(tmp_path / f"run_seed{seed}", []) for seed in (0, 1)]
    for run in runs:
        (run / "args.yaml").unlink()
    page = Page(write_report(runs, tmp_path / "r.html"))
    assert page.column("runs", "seeds") == {"run": "0, 1"}


def test_headline_is_about_map_whatever_is_logged_first(tmp_path: Path) -> None:
    run = ultralytics_work_dir(tmp_path / "run_seed0", [])
    (run / "results.csv").write_text(
        "epoch,metrics/precision(B),metrics/accuracy_top1,metrics/mAP50-95(B)\n1,0.9,0.8,0.7\n"
    )
    page = Page(write_report([run], tmp_path / "r.html"))
    assert page.title == "run ends at metrics/mAP50-95(B) 70 (one seed)."
    (run / "results.csv").write_text("epoch,metrics/x,metrics/accuracy_top1\n1,0.9,0.8\n")
    page = Page(write_report([run], tmp_path / "r.html"))
    assert page.title == "run ends at metrics/accuracy_top1 80 (one seed)."
    (run / "results.csv").write_text("epoch,metrics/x,metrics/y\n1,0.9,0.8\n")
    page = Page(write_report([run], tmp_path / "r.html"))
    assert page.title == "run ends at metrics/x 90 (one seed)."


def test_logs_of_dynamics_alone(tmp_path: Path) -> None:
    run = mmengine_work_dir(tmp_path / "run_seed0")
    line = {"dynamics/gradient_cosine": 0.5, "iter": 1, "step": 1}
    [scalars] = run.glob("*/vis_data/scalars.json")
    scalars.write_text(json.dumps(line) + "\n")
    page = Page(write_report([run], tmp_path / "r.html"))
    assert "hold no losses, scores or learning rates" in page.text
    assert page.curves["dynamics-0"]["lines"][0]["y"] == [0.5]


@pytest.mark.parametrize(("limit", "expected"), [(50_000, 1), (20, 7)])
def test_small_files_are_evaluated_in_one_process(
    inputs: Inputs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit: int,
    expected: int,
) -> None:
    asked: dict[str, Any] = {}

    def compare(*given: Any, **options: Any) -> comparison.Comparison:
        asked.update(options)
        return comparison.compare_runs(*given, **options | dict(workers=1))

    monkeypatch.setattr(comparison, "_FEW", limit)
    monkeypatch.setattr(comparison, "cpu_count", lambda: 7)
    monkeypatch.setattr(inputs_module, "compare_runs", compare)
    # Of two runs, neither of which has more than 20 detections.
    write_report(inputs.plain, tmp_path / "r.html", resamples=0)
    assert (asked["workers"], asked["progress"]) == (expected, False)
    write_report(inputs.plain, tmp_path / "r.html", resamples=0, workers=3, progress=True)
    assert (asked["workers"], asked["progress"]) == (3, True)


def test_seeds_of_different_teachers_are_not_pooled_in_silence(
    inputs: Inputs, tmp_path: Path
) -> None:
    def trained(seed: int, teacher: str) -> Path:
        folder = mmengine_work_dir(tmp_path / f"ours_seed{seed}", is_distilled=True)
        log = folder / "20250102_030405" / "20250102_030405.log"
        log.write_text(f"DistillHook teacher: Net from t.pth (sha256 {teacher * 64})\n")
        return folder

    same = [trained(0, "a"), trained(1, "a"), inputs.plain[0]]
    note = "its teacher is not that of ours, seed 0, though both count as seeds of one run"
    assert note not in Page(write_report(same, tmp_path / "r.html")).text
    page = Page(write_report([*same, trained(2, "b")], tmp_path / "r.html"))
    assert f"ours, seed 2: {note}" in page.text


@pytest.mark.parametrize("content", ['[{"image_id": 1, "cat', "", "{}", "[[[", "[1]"])
def test_damaged_detections_of_a_killed_run(inputs: Inputs, tmp_path: Path, content: str) -> None:
    killed = run_on(inputs.annotations, tmp_path)
    file = killed / "detections.bbox.json"
    file.write_text(content)
    out = tmp_path / "r.html"
    page = Page(write_report([inputs.plain[0], killed], out, resamples=0))
    assert f"other, seed 0: not among the evaluated runs. {file}: " in page.text
    assert page.tables["table-scores"][0] == ["metric", "plain"]
    # Its curves are shown all the same, and those of a run alone too.
    assert page.column("runs", "seeds") == {"plain": "0", "other": "0"}
    alone = Page(write_report([killed], out))
    assert "can be read with the annotation file; the notes say why" in alone.text
    assert alone.title == "other ends at coco/bbox_mAP 40 (one seed)."
    # What is named is an error.
    with pytest.raises(InputError, match=re.escape(f"{file}: ")):
        write_report([inputs.plain[0], killed], out, detections={killed: file})
    with pytest.raises(InputError, match=re.escape(f"{file}: ")):
        write_report([killed], out, annotations=inputs.annotations)


def test_photos_outside_the_images_folder_are_not_embedded(inputs: Inputs, tmp_path: Path) -> None:
    images = tmp_path / "photos"
    (images / "sub").mkdir(parents=True)
    for photo, place in [("0", tmp_path), ("1", tmp_path), ("2", images / "sub"), ("3", images)]:
        shutil.copy(inputs.images / f"photo_{photo}.png", place)
    truth = json.loads(inputs.annotations.read_text())
    for index, name in enumerate(
        ["../photo_0.png", f"{tmp_path}/photo_1.png", "sub/photo_2.png", f"{images}/photo_3.png"]
    ):
        truth["images"][index]["file_name"] = name
    # A folder whose name begins alike is another one.
    (tmp_path / "photos2").mkdir()
    shutil.copy(inputs.images / "photo_4.png", tmp_path / "photos2")
    truth["images"][4]["file_name"] = "../photos2/photo_4.png"
    annotations = tmp_path / "truth.json"
    annotations.write_text(json.dumps(truth))
    page = Page(
        write_report(
            inputs.plain[:1],
            tmp_path / "r.html",
            annotations=annotations,
            images=images,
            resamples=0,
        )
    )
    for name in ("../photo_0.png", f"{tmp_path}/photo_1.png", "../photos2/photo_4.png"):
        assert f"No photo: {name} lies outside {images}." in page.text
    assert len(page.attributes("image", "href")) == 2


def test_baseline_without_detections(inputs: Inputs, tmp_path: Path) -> None:
    """No other run takes its place, though one has the default's name; likewise the teacher."""
    runs = [
        mmengine_work_dir(tmp_path / "a_seed0"),
        mmengine_work_dir(tmp_path / "b_seed0"),
        *inputs.plain[:1],
        inputs.teacher,
    ]
    page = Page(write_report(runs, tmp_path / "r.html", baseline="a", teacher="b", resamples=50))
    assert page.tables["table-scores"][0] == ["metric", "plain", "teacher"]
    assert page.column("runs", "role") == {
        "a": "baseline", "plain": "run", "teacher": "run", "b": "teacher"
    }  # fmt: skip
    assert page.title.startswith("teacher reaches 100.0 mAP (one seed); plain ")
    assert "a, seed 0; b, seed 0: no detection file" in page.text


def test_seeds_of_different_machines(tmp_path: Path) -> None:
    run = curves_of()
    seeds = [
        replace(run, environment=dict(GPU="A100", Python="3.11"), teacher=dict(sha256="aa")),
        replace(run, environment=dict(Python="3.11"), teacher=dict(sha256="bb")),
        replace(run, environment=dict(GPU="A100", Python="3.12"), teacher=dict(sha256="aa")),
        replace(run, environment={}, teacher={}),
    ]
    environment, teacher = environment_table({"plain": seeds}), teacher_table({"plain": seeds})
    assert environment is not None and teacher is not None
    assert [[cell.text for cell in row] for row in environment.rows] == [
        ["GPU", "A100; –"],
        ["Python", "3.11; 3.12"],
    ]
    assert [[cell.text for cell in row] for row in teacher.rows] == [["sha256", "aa; bb"]]


def test_the_best_of_several_is_said_to_be_chosen(inputs: Inputs, tmp_path: Path) -> None:
    runs = [*inputs.plain[:1], inputs.distilled, inputs.teacher]
    names = {inputs.teacher: "other"}
    page = Page(write_report(runs, tmp_path / "r.html", names=names, resamples=50))
    assert page.title.startswith("Of 2 runs, other does best: chosen by this score, it adds ")
    assert " over images, not adjusted for the choice, one seed)" in page.title


def test_interval_that_holds_zero_is_said(inputs: Inputs, tmp_path: Path) -> None:
    runs = [
        ultralytics_work_dir(tmp_path / f"{name}_seed0", detections(mistakes))
        for name, mistakes in [("plain", {0: "missed"}), ("distilled", {1: "missed"})]
    ]
    page = Page(
        write_report(runs, tmp_path / "r.html", annotations=inputs.annotations, resamples=200)
    )
    assert page.title.endswith("the interval includes 0, so this may be chance.")
    assert 'class="verdict unclear"' in page.source


def test_work_dir_of_a_name_that_is_no_text(inputs: Inputs, tmp_path: Path) -> None:
    run = replace(read_work_dir(inputs.plain[0]), name="<b>&\ud800")
    styles = run_styles({run.name: "run"})
    chart = curve_charts([run], styles, "task loss")[0].as_json()
    # Text, which the page puts into elements as it is.
    assert chart["lines"][0]["name"] == "<b>&\ud800, seed 0"
    named = write_report(inputs.plain[:1], tmp_path / "r.html", names={inputs.plain[0]: run.name})
    page = Page(named)
    assert page.curves["task-loss-0"]["lines"][0]["name"].startswith("<b>&")
    assert "<b>" not in page.source
    assert "<b>&\ufffd" in page.letters("map")
