"""Takes the pictures of a report that the README shows, with the system's Chromium.

mmkd demo --seeds 3
python docs/screenshots.py work_dirs/demo/report.html
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

OUT = Path(__file__).parent / "images"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path)
    args = parser.parse_args()
    browser_file = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_file is None:
        raise SystemExit("no Chromium here: install it, as by apt-get install chromium")
    address = args.report.resolve().as_uri()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=browser_file, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport=dict(width=1200, height=1150), color_scheme="light")
        page.goto(address)
        page.wait_for_selector("html[data-charts=drawn]")
        page.screenshot(path=OUT / "report.png")
        page.locator("#images").evaluate("section => section.scrollIntoView()")
        page.screenshot(path=OUT / "report_images.png")
        phone = browser.new_page(
            viewport=dict(width=375, height=780), device_scale_factor=2, color_scheme="dark"
        )
        phone.goto(address)
        phone.wait_for_selector("html[data-charts=drawn]")
        phone.screenshot(path=OUT / "report_phone.png")
        browser.close()


if __name__ == "__main__":
    main()
