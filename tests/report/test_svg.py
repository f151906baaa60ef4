"""Figures as SVG in a page: its colours, its letters, names of its own, and nothing hostile."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from itertools import chain
from xml.etree import ElementTree

import numpy as np
import pytest

from helpers.box_scenes import Found, Truth, annotations, detections
from mmkd.evaluation.comparison import Comparison, Run, compare_runs
from mmkd.report.figures import headline_panel, page_panels
from mmkd.report.figures.svg import inline_svgs
from mmkd.report.style import RunStyle, group_styles, run_styles

SVG = "{http://www.w3.org/2000/svg}"
TRUTH: list[Truth] = [
    (image, image % 2, (10, 10, side, side), False) for image, side in enumerate((20, 60, 120, 60))
]


def compare(names: Sequence[str]) -> Comparison:
    generator = np.random.default_rng(3)
    runs = []
    for name in names:
        boxes: list[Found] = [
            (image, category, (x, y, w, h * generator.uniform(0.5, 1)), generator.uniform())
            for image, category, (x, y, w, h), _ in TRUTH
        ]
        runs.append(Run(name, detections(boxes), 10**7, 0.2))
    return compare_runs(annotations(TRUTH, images=4, categories=2), runs, resamples=20)


def svgs(comparison: Comparison) -> dict[str, str]:
    styles = group_styles(comparison.groups)
    headline = headline_panel(comparison, styles)
    assert headline is not None
    panels = [headline, *chain(*page_panels(comparison, styles).values())]
    drawn = inline_svgs(panels, styles.values())
    return {panel.key: svg for panel, svg in zip(panels, drawn, strict=True)}


@pytest.fixture(scope="module")
def pair() -> Comparison:
    return compare(["plain", "plain", "distilled", "teacher"])


@pytest.fixture(scope="module")
def drawn(pair: Comparison) -> dict[str, str]:
    return svgs(pair)


def letters(svg: str) -> list[str]:
    return ["".join(text.itertext()) for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def told(svg: str, run: int) -> list[str]:
    """What a pointer is told of a run."""
    root = ElementTree.fromstring(svg)
    groups = [each for each in root.iter() if each.get("data-run") == str(run)]
    titles = [group.find(f"{SVG}title") for group in groups]
    return [str(title.text) for title in titles if title is not None]


def test_every_figure_is_an_image_with_a_name(drawn: dict[str, str]) -> None:
    assert list(drawn) == [
        "map",
        "differences",
        "classes-0",
        *("errors-1", "errors-0"),
        *("sizes-AP", "sizes-AR"),
        *("precision-50", "precision-75", "precision-90", "ap-by-iou"),
        *("parameters", "step-time"),
    ]
    for svg in drawn.values():
        root = ElementTree.fromstring(svg)
        assert root.get("role") == "img" and len(root.get("aria-label", "")) > 30
        # It takes the width of what holds it.
        assert root.get("width") is root.get("height") is None
        assert 300 < float(root.get("viewBox", "").split()[2]) < 360


def test_colours_are_the_page_s(drawn: dict[str, str]) -> None:
    for key, svg in drawn.items():
        paints = set(re.findall(r"\b(?:fill|stroke): ([^;\"]+)", svg))
        patterns = {paint for paint in paints if paint.startswith("url(#")}
        assert paints - patterns <= {
            "none", "var(--ink)", "var(--card)", "var(--line)",
            "var(--run-0)", "var(--run-1)", "var(--run-2)",
        }, key  # fmt: skip
        shown = {"1", "2"} if key == "differences" else {"0", "1", "2"}
        assert set(re.findall(r'data-run="(\d)"', svg)) == shown
        assert not re.search(r"#[0-9a-fA-F]{6}\b|font-family|<style|<metadata|DejaVu", svg)
        # What names no colour is black in any theme; definitions take that of their use.
        root = ElementTree.fromstring(svg)
        defined = {each for defs in root.iter(f"{SVG}defs") for each in defs.iter()}
        for tag in ("path", "use", "text"):
            drawn_here = [each for each in root.iter(f"{SVG}{tag}") if each not in defined]
            assert all("fill: " in each.get("style", "") for each in drawn_here), (key, tag)


def test_names_are_unique_in_the_page(drawn: dict[str, str]) -> None:
    page = "".join(drawn.values())
    names = re.findall(r'\bid="(.*?)"', page)
    assert len(names) == len(set(names)) > 20
    references = set(re.findall(r'(?:href="|url\()#([\w.-]+)', page))
    assert references == set(names)
    # Hatches are heavy, and all figures have them: the plain run's comes once.
    assert page.count("<pattern") == 1


def test_the_same_comparison_gives_the_same_text(pair: Comparison, drawn: dict[str, str]) -> None:
    assert svgs(pair) == drawn


def test_numbers_are_those_of_the_comparison(pair: Comparison, drawn: dict[str, str]) -> None:
    scores = {group.name: group.metrics["mAP"].mean for group in pair.groups}
    assert [text for text in letters(drawn["map"]) if "." in text and " " not in text] == [
        f"{score:.1f}" for score in scores.values()
    ]
    distilled = pair.group("distilled")
    [*_, ap50, _] = [text for text in told(drawn["differences"], 1) if "AP50" in text]
    gain = distilled.differences["AP50"]
    assert ap50 == f"distilled, AP50: {gain.value:+.1f} ({gain.low:+.1f} to {gain.high:+.1f})"
    assert told(drawn["precision-50"], 2) == [
        f"teacher {pair.group('teacher').metrics['AP50'].mean:.4g} AP at IoU 0.50"
    ]
    plain = pair.group("plain").metrics["mAP"]
    seeds = ", ".join(f"{value:.1f}" for value in plain.values)
    assert f"plain, plain, seeds: {seeds}" in told(drawn["map"], 0)
    count, cost = distilled.errors["missed"]
    assert f"distilled, missed object not found: {count:,.1f}" in told(drawn["errors-0"], 1)
    assert f"distilled, missed object not found: {cost:,.1f}" in told(drawn["errors-1"], 1)
    assert told(drawn["parameters"], 0)[0].endswith("mAP, parameters, millions: 10")


def test_all_that_is_a_run_s_goes_with_it(drawn: dict[str, str]) -> None:
    """What is left without any run are axes, letters and grid."""
    for key, svg in drawn.items():
        root = ElementTree.fromstring(svg)
        for parent in list(root.iter()):
            for child in list(parent):
                if child.get("data-run") is not None or child.tag == f"{SVG}defs":
                    parent.remove(child)
        assert "--run-" not in ElementTree.tostring(root, encoding="unicode"), key


HOSTILE = ["</svg><script>alert(1)</script>", "a\x01b\ud800c", "$x$ & <i>", "检测器"]


def test_hostile_names_are_text() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = svgs(compare(HOSTILE))
    for svg in drawn.values():
        assert "<script" not in svg and "<i>" not in svg
        svg.encode("utf-8")
    rows = "".join(letters(drawn["map"]))
    assert "a\ufffdb\ufffdc" in rows and "$x$ & <i>" in rows and "检测器" in rows
    assert rows.startswith("</svg><script>alert(1)", rows.index("</svg>"))


def test_runs_differ_by_more_than_colour() -> None:
    roles = {"plain": "baseline", "teacher": "teacher", **{f"run {i}": "run" for i in range(5)}}
    styles: list[RunStyle] = list(run_styles(roles).values())
    for part in ("index", "color", "dark_color", "marker", "marker_path"):
        assert len({getattr(style, part) for style in styles}) == len(roles), part
    assert len({(style.dash, style.marker) for style in styles}) == len(roles)
    assert len({(style.color, style.hatch) for style in styles}) == len(roles)
    # Of a solid line and a square within 1 of the origin.
    assert styles[2].dash == () and styles[2].marker_path == "M-1,1L1,1L1,-1L-1,-1L-1,1Z"
