"""The report in a real browser: the system's Chromium, driven by Playwright."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from helpers.report_inputs import CLASSES, MISTAKES, make_inputs, mmengine_work_dir
from mmkd.report import write_report

try:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import Locator, Page, sync_playwright
except ImportError:
    sync_playwright = None

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
# Where the suite is to prove the page, what is missing for it is no excuse.
if (sync_playwright is None or CHROMIUM is None) and os.environ.get("CI") != "true":
    pytest.skip("needs playwright, axe-playwright-python and Chromium", allow_module_level=True)


@dataclass
class Opened:
    """A page in the browser, and what it did that it should not."""

    page: Page
    messages: list[str]
    requests: list[str]

    def show(self, file: Path) -> None:
        """Opens a file from disk and waits until its curves are drawn."""
        self.page.goto(file.as_uri())
        self.drawn()

    def drawn(self) -> None:
        """Waits until the curves are drawn."""
        self.page.wait_for_selector("html[data-charts=drawn]", timeout=30_000)

    def look(self, width: int, scheme: str) -> None:
        """Sets the window's width in pixels and the wished colour scheme, as if no theme had been
        chosen on the page."""
        self.page.set_viewport_size(dict(width=width, height=800))
        self.page.evaluate("delete document.documentElement.dataset.theme")
        self.page.emulate_media(color_scheme=scheme)
        other = "Dark" if scheme == "light" else "Light"
        self.page.wait_for_selector(f"#theme:text-is('{other}')")
        self.drawn()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    inputs = make_inputs(folder)
    # Without detections; its name is longer than a phone is wide.
    name = "faster-rcnn_r18_fpn_cwd_with_a_name_that_no_phone_can_hold_seed0"
    other = mmengine_work_dir(folder / name, is_distilled=True)
    (inputs.images / "photo_4.png").unlink()
    return write_report([*inputs.work_dirs, other], folder / "report.html", resamples=20)


@pytest.fixture(scope="module")
def opened(report: Path) -> Iterator[Opened]:
    assert sync_playwright is not None, "playwright and axe-playwright-python are not installed"
    assert CHROMIUM is not None, "no Chromium is installed"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(color_scheme="light", viewport=dict(width=1280, height=800))
        opened = Opened(page, [], [])
        page.on("console", lambda message: opened.messages.append(message.text))
        page.on("pageerror", lambda error: opened.messages.append(str(error)))
        page.on("request", lambda request: opened.requests.append(request.url))
        opened.show(report)
        yield opened
        browser.close()


@pytest.fixture
def page(opened: Opened) -> Page:
    opened.look(1280, "light")
    return opened.page


def column(page: Page, table: str, index: int) -> list[float]:
    """The values by which a column is sorted; nan for none."""
    cells = page.locator(f"#table-{table} tbody tr > :nth-child({index + 1})")
    values = cells.evaluate_all("cells => cells.map(cell => cell.dataset.value)")
    return [float(value) for value in values]


def heading(page: Page, table: str, index: int) -> Locator:
    return page.locator(f"#table-{table} thead th").nth(index)


def names(page: Page, table: str) -> list[str]:
    return [text.strip() for text in page.locator(f"#table-{table} tbody th").all_inner_texts()]


def shown_pictures(page: Page) -> set[str]:
    return set(page.locator(".picture:visible h3").all_inner_texts())


def series(page: Page, part: str) -> list[Any]:
    """Something of each line of each chart of curves, as uPlot has it."""
    script = f"""[...charts.values()].flatMap(
      (chart) => chart.series.slice(1).map((line, index) => {part}))"""
    return page.evaluate(script)


def colors(page: Page) -> list[str]:
    """Of all bars and lines in figures, as they are painted."""
    script = """paths => paths.map(path => {
      const style = getComputedStyle(path);
      return style.stroke + ' ' + style.fill;
    })"""
    return page.locator(".figure [data-run] path").evaluate_all(script)


def photos(*images: int) -> set[str]:
    return {f"photo_{image}.png" for image in images}


def test_every_figure_is_drawn(page: Page) -> None:
    figures = page.locator(".figure")
    assert figures.count() == 13
    shapes = "figures => figures.map(f => f.querySelectorAll('[data-run] path').length)"
    assert min(figures.evaluate_all(shapes)) > 0
    for figure in figures.all():
        card = figure.locator("xpath=..").bounding_box()
        box = figure.bounding_box()
        assert box["height"] > 80 and box["width"] > 200
        # It fills its card, and no more.
        assert box["x"] >= card["x"] and box["width"] > 0.8 * card["width"]
        assert box["x"] + box["width"] <= card["x"] + card["width"]
        assert box["y"] + box["height"] <= card["y"] + card["height"]


def test_letters_lie_within_their_figures(page: Page) -> None:
    """The browser's font is not the one with which they were laid out."""
    script = """figures => figures.flatMap((figure) => {
      const frame = figure.getBoundingClientRect();
      return [...figure.querySelectorAll('text')].map((text) => {
        const box = text.getBoundingClientRect();
        const out = Math.max(
          frame.left - box.left, box.right - frame.right,
          frame.top - box.top, box.bottom - frame.bottom);
        return [text.textContent, out];
      });
    })"""
    found = page.locator(".figure").evaluate_all(script)
    assert len(found) > 200
    assert [text for text, out in found if out > 1] == []


def test_every_curve_is_drawn(page: Page) -> None:
    holders = page.locator(".chart")
    assert holders.count() > 10
    assert all(len(label) > 30 for label in holders.evaluate_all("c => c.map(x => x.ariaLabel)"))
    assert page.evaluate("charts.size") == holders.count()
    asked = "[...charts.keys()].map(key => curves.charts[key].lines.length)"
    drawn = page.evaluate("[...charts.values()].map(chart => chart.series.length - 1)")
    assert drawn == page.evaluate(asked)
    # Not one canvas is without its runs' colours; where lines are thin, these are mixed.
    script = """[...charts.values()].map((chart) => {
      const { width, height } = chart.ctx.canvas;
      const pixels = chart.ctx.getImageData(0, 0, width, height).data;
      const colors = chart.series.slice(1).map((line, i) =>
        line.stroke(chart, i + 1).match(/\\d+/g).map(Number));
      let count = 0;
      for (let i = 0; i < pixels.length; i += 4) {
        const isNear = (own) => own.every((part, c) => Math.abs(part - pixels[i + c]) < 30);
        if (pixels[i + 3] > 220 && colors.some(isNear)) count += 1;
      }
      return count;
    })"""
    drawn = page.evaluate(script)
    assert len(drawn) == holders.count() and min(drawn) > 20
    first = page.evaluate("charts.get('task-loss-0').data.map(values => values.slice(0, 2))")
    assert first[0] == [1, 2]
    assert first[1] == [3, 1.5]


def test_a_pointer_reads_and_zooms_curves(opened: Opened, page: Page) -> None:
    chart = page.locator("#chart-task-loss-0")
    chart.scroll_into_view_if_needed()
    readout = chart.locator(".readout")
    assert readout.is_hidden()
    scale = (
        "(() => { const { min, max } = charts.get('task-loss-0').scales.x; return [min, max]; })()"
    )
    before = page.evaluate(scale)
    assert before == [1, 60]
    over = chart.locator(".u-over").bounding_box()

    def move(share: float) -> None:
        page.mouse.move(over["x"] + share * over["width"], over["y"] + 60, steps=3)

    move(19 / 59)
    assert readout.locator("strong").inner_text() == "iteration 20"
    # Three halves of 2 / 20, of every run that has logged iterations.
    assert readout.locator("div").first.inner_text() == "plain, seed 0: 0.15"
    assert readout.locator("div").count() == 4
    page.mouse.down()
    move(39 / 59)
    page.mouse.up()
    low, high = page.evaluate(scale)
    assert low == pytest.approx(20, abs=0.5) and high == pytest.approx(40, abs=0.5)
    page.mouse.dblclick(over["x"] + 50, over["y"] + 60)
    assert page.evaluate(scale) == before
    page.mouse.move(0, 0)
    assert readout.is_hidden()


def test_names_stay_text_in_figures(page: Page) -> None:
    letters = page.locator("#figure-classes-0 .figure text").all_text_contents()
    assert set(CLASSES) <= set(letters)


def test_numbers_are_sorted_largest_first_then_smallest(page: Page) -> None:
    before = column(page, "scores", 1)
    known = sorted(value for value in before if not math.isnan(value))
    assert len(set(known)) > 4
    assert len(known) < len(before)
    button = heading(page, "scores", 1).locator("button")
    for order, expected in (("descending", known[::-1]), ("ascending", known)):
        button.click()
        after = column(page, "scores", 1)
        assert after[: len(known)] == expected
        assert all(map(math.isnan, after[len(known) :]))
        assert heading(page, "scores", 1).get_attribute("aria-sort") == order
    # Whole rows were moved, and only one column is said to be sorted.
    rows = dict(zip(names(page, "scores"), after, strict=True))
    assert rows["mAP"] == before[0]
    heading(page, "scores", 2).locator("button").click()
    assert heading(page, "scores", 1).get_attribute("aria-sort") == "none"
    assert page.locator("#table-scores th[aria-sort=descending]").count() == 1


def test_texts_are_sorted_by_the_keyboard_too(page: Page) -> None:
    button = heading(page, "classes", 0).locator("button")
    button.focus()
    page.keyboard.press("Enter")
    assert heading(page, "classes", 0).get_attribute("aria-sort") == "ascending"
    ascending = names(page, "classes")
    assert ascending == [CLASSES[1], "10", CLASSES[2]]
    page.keyboard.press("Enter")
    assert names(page, "classes") == ascending[::-1]


def test_filters_show_the_images_that_have_it(page: Page) -> None:
    kind, category = page.locator("#filter-kind"), page.locator("#filter-class")
    status = page.locator("#shown")
    assert status.get_attribute("aria-live") == "polite"
    everything = photos(*range(6))
    assert shown_pictures(page) == everything
    by_kind: dict[str, set[str]] = {}
    for image, mistake in MISTAKES.items():
        by_kind.setdefault(mistake, set()).update(photos(image))
    # An object behind a detection of another class and place is missed as well.
    by_kind["missed"] |= photos(5)
    for mistake, expected in by_kind.items():
        kind.select_option(mistake)
        assert shown_pictures(page) == expected, mistake
        assert status.inner_text() == f"{len(expected)} of 6 images"
    kind.select_option("")
    # Objects: image k has class k modulo 3, images 0 and 1 also the third. Wrong detections: image
    # 1 as the third class, 5 as the first.
    for index, expected in enumerate([photos(0, 3, 5), photos(1, 4), photos(0, 1, 2, 5)]):
        category.select_option(label=CLASSES[index])
        assert shown_pictures(page) == expected, CLASSES[index]
    # Both: a box that is of the class and of the type.
    kind.select_option("missed")
    assert shown_pictures(page) == photos(5)
    category.select_option("")
    kind.select_option("")
    assert shown_pictures(page) == everything


def test_many_images_are_shown_on_demand(page: Page) -> None:
    more = page.locator("#more")
    assert more.is_hidden()
    page.eval_on_selector(".gallery", "gallery => { gallery.dataset.first = 2; filterPictures(); }")
    everything = page.locator(".picture h3").all_inner_texts()
    assert page.locator(".picture:visible h3").all_inner_texts() == everything[:2]
    assert page.locator("#shown").inner_text() == "6 of 6 images"
    assert more.inner_text() == "Show all 6"
    more.click()
    assert page.locator(".picture:visible h3").all_inner_texts() == everything
    assert more.is_hidden()
    focused = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert focused == f"Enlarge {everything[2]}"


def test_boxes_lie_where_the_files_say(page: Page) -> None:
    picture = page.locator(".picture", has=page.get_by_text("photo_2.png", exact=True))
    assert picture.locator("strong").all_inner_texts() == ["truth", "plain", "distilled", "teacher"]
    box = picture.locator("svg.boxes").nth(1).locator("rect.box.localisation")
    # Of the 120 pixels of the image's width, 22 are left of the box, which is 30 wide.
    image = picture.locator("svg.boxes").nth(1).bounding_box()
    scale = image["width"] / 120
    found = box.bounding_box()
    assert found["x"] - image["x"] == pytest.approx(22 * scale, abs=2)
    assert found["width"] == pytest.approx(30 * scale, abs=4)
    label = picture.locator("svg.boxes").nth(1).locator(".localisation text")
    assert label.inner_html() == "bar &amp; &lt;i&gt; 0.88 · localisation"
    assert label.is_visible()


def test_types_differ_by_more_than_colour(page: Page) -> None:
    swatches = page.locator(".kinds .box")
    script = """boxes => boxes.map(box => {
      const style = getComputedStyle(box);
      return [style.stroke, style.strokeDasharray];
    })"""
    styles = swatches.evaluate_all(script)
    fills = page.locator(".kinds svg *").evaluate_all(
        "all => all.map(x => getComputedStyle(x).fill)"
    )
    assert set(fills) == {"rgba(0, 0, 0, 0)"}
    dashes = [dash for _, dash in styles]
    assert len(styles) == 9
    # Truth and true positives, which stand in panels of their own, are both drawn solid.
    assert dashes.count("none") == 2
    assert len(set(dashes)) == len(dashes) - 1
    assert len({color for color, _ in styles}) >= 8


def test_photos_and_missing_photos(page: Page) -> None:
    sizes = page.evaluate(
        """Promise.all([...document.querySelectorAll('svg.boxes image')].map(async (image) => {
          const photo = new Image();
          photo.src = image.href.baseVal;
          await photo.decode();
          return photo.naturalWidth;
        }))"""
    )
    assert sizes == [120] * 5
    without = page.locator(".picture", has=page.get_by_text("photo_4.png", exact=True))
    assert "is not there" in without.locator(".note").inner_text()
    assert without.locator("rect.ground").count() == 4


def test_enlarging_and_writing_on_boxes(page: Page) -> None:
    picture = page.locator(".picture").first
    image = picture.locator("svg.boxes").nth(1)
    before = image.bounding_box()["width"]
    found = picture.locator(".true-positive text").first
    assert not found.is_visible()
    button = picture.locator(".enlarge")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert image.bounding_box()["width"] > 1.5 * before
    assert found.is_visible()
    button.click()
    assert not found.is_visible()
    page.get_by_label("Write on every box").check()
    assert found.is_visible()
    page.get_by_label("Write on every box").uncheck()
    assert not found.is_visible()


def test_runs_are_hidden_and_shown_in_all_figures_and_charts(page: Page) -> None:
    drawn = page.locator(".figure [data-run='0']")
    others = page.locator(".figure [data-run='1']:visible")
    before = (drawn.locator("visible=true").count(), others.count())
    assert min(before) > 20
    assert all(series(page, "line.show"))
    button = page.locator(".legend button", has_text="plain").first
    button.click()
    assert (drawn.locator("visible=true").count(), others.count()) == (0, before[1])
    shown = series(page, "[line.run, line.show]")
    assert {run for run, is_shown in shown if not is_shown} == {0}
    assert {run for run, is_shown in shown if is_shown} == {1, 2, 3}
    pressed = page.locator(".legend button", has_text="plain")
    assert {each.get_attribute("aria-pressed") for each in pressed.all()} == {"false"}
    button.click()
    assert (drawn.locator("visible=true").count(), others.count()) == before
    assert all(series(page, "line.show"))


def test_theme_changes_page_figures_and_curves(page: Page) -> None:
    def look() -> tuple[str, list[str], str, list[str]]:
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        letters = page.locator("#figure-map text").first
        ink = letters.evaluate("text => getComputedStyle(text).fill")
        return ground, colors(page), ink, series(page, "line.stroke(chart, index + 1)")

    light = look()
    page.get_by_role("button", name="Dark theme").click()
    dark = look()
    assert dark[0] != light[0]
    assert dark[2] != light[2]
    # Each run keeps its hue, lighter; black would not be seen.
    for place in (1, 3):
        assert len(dark[place]) == len(light[place]) > 20
        assert any("rgb(1, 1, 1)" in each for each in light[place])
        assert not any("rgb(1, 1, 1)" in each for each in dark[place])
        assert any("rgb(255, 255, 255)" in each for each in dark[place])
    page.get_by_role("button", name="Light theme").click()
    assert look() == light


@pytest.mark.parametrize("width", [375, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible_and_in_the_window(opened: Opened, width: int, scheme: str) -> None:
    opened.look(width, scheme)
    assert opened.page.evaluate("document.scrollingElement.scrollWidth") <= width
    tables = opened.page.locator("table")
    for holder in tables.locator("xpath=..").all():
        assert holder.get_attribute("tabindex") == "0"
        assert holder.get_attribute("role") == "region"
        assert holder.bounding_box()["width"] <= width
    options = {"resultTypes": ["violations"]}
    found: dict[str, Any] = Axe().run(opened.page, None, options).response
    assert len(found["passes"]) > 20
    serious = [
        (rule["id"], [node["html"][:200] for node in rule["nodes"]])
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_wide_tables_scroll_by_the_keyboard(opened: Opened) -> None:
    opened.look(375, "light")
    holder = opened.page.locator("#table-scores").locator("xpath=..")
    assert holder.evaluate("element => element.scrollWidth > element.clientWidth")
    holder.focus()
    opened.page.keyboard.press("ArrowRight")
    # Scrolling takes a moment.
    for _ in range(100):
        if holder.evaluate("element => element.scrollLeft") > 0:
            return
        opened.page.wait_for_timeout(50)
    pytest.fail("the table does not scroll")


def test_neither_complaints_nor_requests(opened: Opened, report: Path) -> None:
    # Last in the file: whatever the other tests did is in it.
    opened.look(1280, "light")
    assert opened.messages == []
    others = [url for url in opened.requests if not url.startswith(("data:", "blob:"))]
    assert set(others) == {report.as_uri()}
