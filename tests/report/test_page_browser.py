"""The report in a real browser: the system's Chromium, driven by Playwright."""

from __future__ import annotations

import math
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from helpers.report_inputs import (
    CLASSES,
    MISTAKES,
    make_inputs,
    mmengine_work_dir,
    scene_work_dirs,
)
from mmkd.report import write_report

try:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
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
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As large as the demo's."""
    folder = tmp_path_factory.mktemp("demo")
    classes = [str(digit) for digit in range(10)]
    noise = dict(plain=0.3, distilled=0.15, teacher=0.05)
    return write_report(scene_work_dirs(folder, classes, noise), folder / "r.html", resamples=10)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Many classes and arms, whose names are long and hostile."""
    folder = tmp_path_factory.mktemp("large")
    names = ["</script><b>x", "W" * 60, "a rather long name of a class", "<img src=x onerror=f()>"]
    classes = [f"{index} {names[index % 4]}" for index in range(80)]
    arms = ["faster-rcnn_r18_fpn_cwd_with_a_name_that_no_phone_can_hold", "<b>arm", *"cde"]
    noise = dict.fromkeys(["plain", *arms, "teacher"], 0.2)
    work_dirs = scene_work_dirs(folder, classes, noise, num_images=12)
    return write_report(work_dirs, folder / "r.html", resamples=10)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert sync_playwright is not None, "playwright and axe-playwright-python are not installed"
    assert CHROMIUM is not None, "no Chromium is installed"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


def messages_of(page: Page) -> list[str]:
    """What it will complain of."""
    messages: list[str] = []
    page.set_default_timeout(10_000)
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    return messages


@contextmanager
def window(browser: Browser, file: Path, width: int, scheme: str = "light") -> Iterator[Page]:
    """A page in a window of its own, which must not complain."""
    height = 812 if width < 500 else 800
    page = browser.new_page(color_scheme=scheme, viewport=dict(width=width, height=height))
    opened = Opened(page, messages_of(page), [])
    opened.show(file)
    yield page
    assert opened.messages == []
    page.close()


@pytest.fixture(scope="module")
def phone(browser: Browser, demo: Path) -> Iterator[Page]:
    """The demo's report on a phone."""
    with window(browser, demo, 375) as page:
        yield page


@pytest.fixture(scope="module")
def opened(browser: Browser, report: Path) -> Opened:
    page = browser.new_page(color_scheme="light", viewport=dict(width=1280, height=800))
    opened = Opened(page, messages_of(page), [])
    page.on("request", lambda request: opened.requests.append(request.url))
    opened.show(report)
    return opened


@pytest.fixture
def page(opened: Opened) -> Page:
    opened.look(1280, "light")
    # A test that failed may have left it open.
    opened.page.evaluate("viewer.close()")
    opened.page.evaluate("shownPictures = Infinity; showPictures()")
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
    before = column(page, "scores", 2)
    known = sorted(value for value in before if not math.isnan(value))
    assert len(set(known)) > 4
    assert len(known) < len(before)
    button = heading(page, "scores", 2).locator("button")
    for order, expected in (("descending", known[::-1]), ("ascending", known)):
        button.click()
        after = column(page, "scores", 2)
        assert after[: len(known)] == expected
        assert all(map(math.isnan, after[len(known) :]))
        assert heading(page, "scores", 2).get_attribute("aria-sort") == order
    # Whole rows were moved, and only one column is said to be sorted.
    rows = dict(zip(names(page, "scores"), after, strict=True))
    assert rows["mAP"] == before[0]
    heading(page, "scores", 1).locator("button").click()
    assert heading(page, "scores", 2).get_attribute("aria-sort") == "none"
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
        assert page.evaluate("chosen.length") == len(expected)
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
    # A choice of the filters begins with few again.
    assert shown_pictures(page) < everything and len(shown_pictures(page)) == 4


def test_images_are_shown_on_demand(browser: Browser, demo: Path) -> None:
    with window(browser, demo, 375) as page:
        page.emulate_media(reduced_motion="reduce")
        more = page.locator("#more")
        everything = page.locator(".picture h3").all_text_contents()
        assert len(everything) == 24
        for shown, left in ((4, 8), (12, 8), (20, 4)):
            assert page.locator(".picture:visible h3").all_inner_texts() == everything[:shown]
            assert more.inner_text() == f"Show {left} more images"
            status = page.locator("#shown").inner_text()
            assert status == f"24 of 24 images, the first {shown} shown"
            more.focus()
            page.keyboard.press("Enter")
            focused = page.evaluate("document.activeElement.getAttribute('aria-label')")
            assert focused == f"Enlarge {everything[shown]}"
            assert page.evaluate("document.getAnimations().length") == 0
        assert page.locator(".picture:visible h3").all_inner_texts() == everything
        assert more.is_hidden()
        assert page.locator("#shown").inner_text() == "24 of 24 images"


def test_without_scripts_everything_is_open(browser: Browser, demo: Path) -> None:
    context = browser.new_context(java_script_enabled=False, viewport=dict(width=375, height=812))
    page = context.new_page()
    page.goto(demo.as_uri())
    assert page.locator(".picture:visible").count() == 24
    assert page.locator("#table-classes tbody tr:visible").count() == 10
    assert page.locator(".figure:visible").count() == page.locator(".figure").count() > 10
    assert page.locator("noscript p").is_visible()
    # What would do nothing is not there.
    assert page.locator(".enlarge:visible, #filters:visible, #theme:visible").count() == 0
    assert page.locator("dialog:visible, .expand:visible, #more:visible").count() == 0
    context.close()


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
    label = picture.locator(".canvas").nth(1).locator(".label.localisation")
    assert label.inner_html() == "bar &amp; &lt;i&gt; 0.88"
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


@pytest.mark.parametrize("width", [375, 1280])
def test_enlarge_shows_the_picture_as_large_as_the_window(
    browser: Browser, demo: Path, width: int
) -> None:
    with window(browser, demo, width) as page:
        picture = page.locator(".picture").nth(1)
        before = picture.locator(".canvas").first.bounding_box()
        picture.locator(".enlarge").click()
        image = page.locator("#viewer-stage .canvas")
        large = image.bounding_box()
        assert large["width"] > 2 * before["width"] and large["height"] > 2 * before["height"]
        assert large["x"] >= 0 and large["x"] + large["width"] <= width
        assert large["y"] >= 0 and large["y"] + large["height"] <= page.viewport_size["height"]
        # It takes up what the window has left, in one direction or the other.
        stage = page.locator("#viewer-stage").bounding_box()
        assert large["width"] > 0.99 * stage["width"] or large["height"] > 0.99 * stage["height"]
        page.locator("#viewer-zoom").click()
        assert image.bounding_box()["width"] == pytest.approx(2.5 * large["width"], rel=0.01)
        image.click(position=dict(x=large["width"], y=large["height"]))
        assert image.bounding_box() == large
        # Every box is labelled, errors with their type.
        settle(page)
        labels = page.locator("#viewer-stage .label").all_inner_texts()
        marks = picture.locator("figure").first.locator(".mark")
        assert 0 < len(labels) <= marks.count()
        page.locator("#viewer-runs button").nth(1).click()
        settle(page)
        kinds = page.locator("#viewer-stage .label.classification")
        assert all(text.endswith(" · classification") for text in kinds.all_inner_texts())


def test_an_enlarged_picture_is_closed_and_left_by_the_keyboard(page: Page) -> None:
    viewer, buttons = page.locator("#viewer"), page.locator(".enlarge")
    focused = (
        "document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText"
    )
    buttons.nth(2).focus()
    page.keyboard.press("Enter")
    assert viewer.is_visible() and page.evaluate("viewer.contains(document.activeElement)")
    assert page.evaluate(focused) == "truth"
    for key, run in (("ArrowRight", "plain"), ("ArrowRight", "distilled"), ("ArrowLeft", "plain")):
        page.keyboard.press(key)
        pressed = page.locator("#viewer-runs [aria-pressed=true]")
        assert pressed.all_inner_texts() == [run] == [page.evaluate(focused)]
    settle(page)
    summary = page.locator(".picture").nth(2).locator("figcaption span").nth(1).inner_text()
    assert page.locator("#viewer-summary").inner_text() == summary
    shown = page.locator(".picture h3").all_inner_texts()
    page.get_by_role("button", name="Next image").click()
    assert page.locator("#viewer-title").inner_text() == shown[3]
    assert page.locator("#viewer-place").inner_text() == "4 of 6"
    previous = page.get_by_role("button", name="Previous image")
    for _ in range(3):
        assert previous.get_attribute("aria-disabled") == "false"
        previous.click()
    # At the end the button keeps the focus.
    assert previous.get_attribute("aria-disabled") == "true"
    page.keyboard.press("Enter")
    assert page.evaluate(focused) == "Previous image"
    assert page.locator("#viewer-title").inner_text() == shown[0]
    page.keyboard.press("Escape")
    assert viewer.is_hidden()
    assert page.evaluate(focused) == f"Enlarge {shown[2]}"
    # By a pointer on the picture, on that run's boxes; closed beside it and by its button.
    for close in ("#viewer-stage", "#viewer-close"):
        page.locator(".picture").first.locator(".canvas").nth(2).click()
        assert page.locator("#viewer-runs [aria-pressed=true]").inner_text() == "distilled"
        page.locator(close).click(position=dict(x=4, y=8))
        assert viewer.is_hidden()
        assert page.evaluate(focused) == f"Enlarge {shown[0]}"
    assert page.locator("#viewer-stage [id]").count() == 0


def settle(page: Page) -> None:
    """Waits until the pictures have their labels, and the enlarged one its sentence: both are
    written before a frame is shown in which a picture is new or has another size."""
    page.evaluate(
        """async () => {
          await Promise.all([...document.images].map((image) => image.decode().catch(() => {})));
          for (const _ of [1, 2]) await new Promise(requestAnimationFrame);
        }"""
    )


def overlapping(boxes: list[dict[str, float]]) -> list[tuple[int, int]]:
    """Which rectangles have a part in common, beyond rounding."""
    return [
        (i, j)
        for i, one in enumerate(boxes)
        for j, other in enumerate(boxes[:i])
        if min(one["x"] + one["width"], other["x"] + other["width"]) - max(one["x"], other["x"])
        > 0.01
        and min(one["y"] + one["height"], other["y"] + other["height"]) - max(one["y"], other["y"])
        > 0.01
    ]


def within(box: dict[str, float], width: float, height: float) -> bool:
    return (
        box["x"] >= -0.01
        and box["y"] >= -0.01
        and box["x"] + box["width"] <= width + 0.01
        and box["y"] + box["height"] <= height + 0.01
    )


def test_labels_never_overlap_and_are_left_out_only_without_room(page: Page) -> None:
    """Against all places at a box, tried one by one."""
    draw = random.Random(0)
    left_out = 0
    for _ in range(150):
        extent = dict(width=draw.uniform(20, 300), height=draw.uniform(20, 300))
        boxes, sizes = [], []
        for _ in range(draw.choice([1, 3, 12, 40])):
            width, height = (draw.uniform(0, side) for side in extent.values())
            x = draw.uniform(0, extent["width"] - width)
            boxes.append(
                dict(x=x, y=draw.uniform(0, extent["height"] - height), width=width, height=height)
            )
            sizes.append(dict(width=draw.uniform(5, 90), height=draw.choice([8, 14])))
        given = [boxes, sizes, extent]
        places = page.evaluate("([b, s, e]) => placeLabels(b, s, e)", given)
        assert places == page.evaluate("([b, s, e]) => placeLabels(b, s, e)", given)
        assert len(places) == len(boxes)
        kept: list[dict[str, float]] = []
        for box, size, place in zip(boxes, sizes, places, strict=True):
            if place is None:
                left_out += 1
                assert not any(free(p, kept, extent) for p in tried(box, size))
                continue
            assert {key: place[key] for key in size} == size
            assert within(place, **extent)
            kept.append(place)
            # It touches its box.
            grown = {key: box[key] - 0.1 for key in "xy"}
            grown |= {key: box[key] + 0.2 for key in size}
            assert overlapping([place, grown])
        assert overlapping(kept) == []
    assert left_out > 100


def tried(box: dict[str, float], size: dict[str, float]) -> Iterator[dict[str, float]]:
    """Above, below and beside a box, at its corners and in its middle."""
    for x_share in (0, 0.5, 1):
        for y in (box["y"] - size["height"], box["y"] + box["height"]):
            yield dict(size, x=box["x"] + x_share * (box["width"] - size["width"]), y=y)
        for x in (box["x"] - size["width"], box["x"] + box["width"]):
            yield dict(size, x=x, y=box["y"] + x_share * (box["height"] - size["height"]))


def free(place: dict[str, float], kept: list[dict[str, float]], extent: dict[str, float]) -> bool:
    return within(place, **extent) and not any(overlapping([place, other]) for other in kept)


@pytest.mark.parametrize("width", [375, 1280])
def test_labels_lie_apart_and_in_their_pictures(browser: Browser, large: Path, width: int) -> None:
    script = """canvases => canvases.map((canvas) => {
      const frame = canvas.getBoundingClientRect();
      return [frame.width, frame.height, [...canvas.querySelectorAll('.label')].map((label) => {
        const { x, y, width, height } = label.getBoundingClientRect();
        return { x: x - frame.x, y: y - frame.y, width, height };
      })];
    })"""
    with window(browser, large, width, "dark") as page:
        settle(page)
        pictures = page.locator(".gallery .canvas:visible").evaluate_all(script)
        # Most of a small picture is seen, and on a phone its title takes four lines at most.
        for right, bottom, labels in pictures:
            assert sum(each["width"] * each["height"] for each in labels) <= 0.2 * right * bottom
        if width == 375:
            titles = page.locator(".gallery figcaption:visible").all()
            assert max(title.bounding_box()["height"] for title in titles) < 80
        page.locator(".enlarge").first.click()
        for _ in range(7):
            settle(page)
            pictures += page.locator("#viewer-stage .canvas").evaluate_all(script)
            page.keyboard.press("ArrowRight")
        assert len(pictures) == 4 * 8 + 7
        assert sum(len(labels) for _, _, labels in pictures) > 60
        for right, bottom, labels in pictures:
            assert overlapping(labels) == []
            assert all(within(label, right, bottom) for label in labels)


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


def serious_faults(page: Page) -> list[tuple[str, list[str]]]:
    found: dict[str, Any] = Axe().run(page, None, {"resultTypes": ["violations"]}).response
    assert len(found["passes"]) > 20
    return [
        (rule["id"], [node["html"][:200] for node in rule["nodes"]])
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("width", [375, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible_and_in_the_window(opened: Opened, width: int, scheme: str) -> None:
    opened.look(width, scheme)
    page = opened.page
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    for holder in page.locator(".table-scroll").all():
        assert holder.get_attribute("tabindex") == "0"
        assert holder.get_attribute("role") == "region"
        assert holder.bounding_box()["width"] <= width
    assert serious_faults(page) == []
    page.locator(".enlarge").first.click()
    assert serious_faults(page) == []
    page.keyboard.press("Escape")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_what_matters_in_a_short_page(
    browser: Browser, demo: Path, scheme: str
) -> None:
    with window(browser, demo, 375, scheme) as page:
        assert page.evaluate("document.scrollingElement.scrollWidth") <= 375
        assert page.evaluate("document.scrollingElement.scrollHeight") < 9_000
        for table in ("scores", "classes"):
            assert heading(page, table, 1).inner_text().split() == ["distilled", "−", "plain"]
            for part in ("thead", "tbody"):
                cell = page.locator(f"#table-{table} {part} tr > :nth-child(2)").first
                box = cell.bounding_box()
                assert box["x"] >= 0 and box["x"] + box["width"] <= 375
        # The name stays beside what is scrolled to.
        holder = page.locator("#table-scores").locator("xpath=..")
        name = page.locator("#table-scores tbody th").first
        before = name.bounding_box()
        holder.evaluate("element => { element.scrollLeft = 1000; }")
        assert name.bounding_box()["x"] == before["x"]


@pytest.mark.parametrize("width", [320, 375, 1280])
def test_the_navigation_is_never_clipped(browser: Browser, large: Path, width: int) -> None:
    with window(browser, large, width) as page:
        links = page.locator(".bar nav a")
        assert links.all_inner_texts() == ["Scores", "Images", "Training", "Runs", "Notes"]
        boxes = [link.bounding_box() for link in [*links.all(), page.locator("#theme")]]
        assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes)
        assert overlapping(boxes) == []
        assert min(box["height"] for box in boxes) >= 24
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
        if width >= 375:
            assert page.locator(".bar").bounding_box()["height"] < 60
        links.nth(3).click()
        top = page.locator("#runs").bounding_box()["y"]
        assert 0 < top < 120


def test_what_is_folded_on_a_phone_opens_by_the_keyboard(browser: Browser, demo: Path) -> None:
    with window(browser, demo, 375) as page:
        folds = page.locator(".fold")
        closed = [i for i in range(folds.count()) if folds.nth(i).get_attribute("open") is None]
        assert len(closed) > 6
        assert page.locator("#table-classes").is_visible()
        assert page.evaluate("charts.size") == 0
        for index in closed:
            folds.nth(index).locator("summary").focus()
            page.keyboard.press("Enter")
        count = page.locator(".chart").count()
        expect(page.locator(".chart canvas")).to_have_count(count)
        assert page.evaluate("charts.size") == count
        width = page.locator(".chart").first.bounding_box()["width"]
        canvas = page.locator(".chart canvas").first.bounding_box()
        assert canvas["width"] == pytest.approx(width, abs=1)
        assert width > 250
        assert page.evaluate("document.scrollingElement.scrollWidth") <= 375
    with window(browser, demo, 1280) as page:
        assert page.locator(".fold:not([open])").count() == 0


def test_every_row_of_a_table_can_be_seen(browser: Browser, demo: Path, large: Path) -> None:
    with window(browser, demo, 1280) as page:
        rows = page.locator("#table-classes tbody tr")
        assert rows.count() == 10
        # None is behind the end of its card.
        frame = page.locator(".table-frame", has=page.locator("#table-classes")).bounding_box()
        for row in rows.all():
            box = row.bounding_box()
            assert box["y"] + box["height"] <= frame["y"] + frame["height"]
    with window(browser, large, 375) as page:
        rows = page.locator("#table-classes tbody tr")
        frame = page.locator(".table-frame", has=page.locator("#table-classes"))
        button = frame.locator(".expand")
        assert (rows.count(), rows.locator("visible=true").count()) == (80, 12)
        assert button.inner_text() == "Show all 80 rows"
        # Those that the order puts first.
        heading(page, "classes", 1).locator("button").click()
        values = column(page, "classes", 1)
        known = [value for value in values if not math.isnan(value)]
        assert known == sorted(known, reverse=True)
        assert rows.nth(0).is_visible() and rows.nth(12).is_hidden()
        button.click()
        assert rows.locator("visible=true").count() == 80
        assert button.get_attribute("aria-expanded") == "true"
        button.click()
        assert rows.locator("visible=true").count() == 12


@pytest.mark.parametrize("width", [375, 1280])
def test_a_table_says_where_it_goes_on(browser: Browser, large: Path, width: int) -> None:
    with window(browser, large, width) as page:
        frame = page.locator(".table-frame", has=page.locator("#table-scores"))
        holder = frame.locator(".table-scroll")

        def hints() -> list[str]:
            sides = "['::before', '::after'].map(side => getComputedStyle(frame, side).opacity)"
            return frame.evaluate(f"frame => {sides}")

        # By a locator: the page's policy refuses a script that is asked for again and again.
        frame.and_(page.locator(".more-right")).wait_for()
        assert hints() == ["0", "1"]
        holder.evaluate("element => { element.scrollLeft = element.scrollWidth; }")
        frame.and_(page.locator(".more-left:not(.more-right)")).wait_for()
        assert hints() == ["1", "0"]


@pytest.mark.parametrize("width", [375, 1280])
def test_cards_are_filled(browser: Browser, demo: Path, width: int) -> None:
    script = """cards => cards.map((card) => {
      const parts = [...card.children].map((part) => part.getBoundingClientRect());
      const bottom = Math.max(...parts.map((part) => part.bottom));
      return [card.id, card.getBoundingClientRect().bottom - bottom];
    })"""
    with window(browser, demo, width) as page:
        page.evaluate("folds.forEach((fold) => { fold.open = true; })")
        gaps = page.locator(".card:visible").evaluate_all(script)
        assert len(gaps) > 20
        assert [gap for gap in gaps if gap[1] > 24] == []


def test_a_report_without_detections_fits_a_phone(browser: Browser, tmp_path: Path) -> None:
    runs = [
        mmengine_work_dir(tmp_path / f"{name}_seed0", score="accuracy/top1", ends_at=ends_at)
        for name, ends_at in (("plain", 33.2), ("a_long_name_of_a_classifier_" * 3, 63.2))
    ]
    out = write_report(runs, tmp_path / "r.html")
    with window(browser, out, 375) as page:
        assert page.evaluate("document.scrollingElement.scrollWidth") <= 375
        assert page.locator("#table-logged").is_visible()
        assert page.locator("#images, #viewer").count() == 0


def test_wide_tables_scroll_by_the_keyboard(phone: Page) -> None:
    holder = phone.locator("#table-scores").locator("xpath=..")
    assert holder.evaluate("element => element.scrollWidth > element.clientWidth")
    holder.focus()
    phone.keyboard.press("ArrowRight")
    # Scrolling takes a moment.
    for _ in range(100):
        if holder.evaluate("element => element.scrollLeft") > 0:
            return
        phone.wait_for_timeout(50)
    pytest.fail("the table does not scroll")


def test_neither_complaints_nor_requests(opened: Opened, report: Path) -> None:
    # Last in the file: whatever the other tests did is in it.
    opened.look(1280, "light")
    assert opened.messages == []
    others = [url for url in opened.requests if not url.startswith(("data:", "blob:"))]
    assert set(others) == {report.as_uri()}
