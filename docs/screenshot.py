"""Take docs/report.png, the picture of the report in the README.

snakemake --report report.html
python docs/screenshot.py report.html docs/report.png
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

report, image = map(Path, sys.argv[1:])
with sync_playwright() as playwright:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    browser = playwright.chromium.launch(executable_path=found)
    page = browser.new_page(viewport={"width": 1280, "height": 490})
    page.goto(report.resolve().as_uri())
    page.locator("#app .prose table").wait_for()
    page.wait_for_timeout(1000)  # until the menu has faded in
    page.screenshot(path=image)
    browser.close()
