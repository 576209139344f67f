"""The real report in a real browser: every category, the JSON's figures, nothing from elsewhere."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from conftest import Lab, tiny_config
from minillm_lab.report import CHARTS, PAGES
from quality_lab import TEXT

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROME = next(filter(None, map(shutil.which, NAMES)), None)
FROM_HERE = ("file:", "data:", "blob:", "about:")
pytestmark = pytest.mark.skipif(
    CHROME is None, reason="no Chromium or Chrome here; on Debian: apt-get install chromium"
)


VARIANTS = {
    "fp16": {"runtime": "transformers", "dtype": "float16"},
    "f16": {"runtime": "llama.cpp", "quantization": "F16"},
    "q4_k_m": {"runtime": "llama.cpp", "quantization": "Q4_K_M"},
}


@pytest.fixture(scope="module")
def lab(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """An experiment with everything but questions, run, and its report."""
    quality = {"text": "text.txt", "questions": None, "context": 64}
    config = tiny_config(tiny_gguf, variants=VARIANTS, baseline="fp16", quality=quality)
    lab = Lab(tmp_path_factory.mktemp("report") / "lab", config)
    lab.path("text.txt").write_text(TEXT)
    lab.run()
    lab.snakemake("--report", "report.html")
    return lab


@pytest.fixture
def report(lab: Lab) -> Path:
    return lab.path("report.html")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROME)
        yield started
        started.close()


@pytest.fixture(params=[1280, 390])
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page that fails the test when it asks for anything elsewhere, or a script breaks."""
    opened = browser.new_page(viewport={"width": request.param, "height": 800})
    asked: list[str] = []
    broken: list[str] = []
    opened.on("request", lambda sent: asked.append(sent.url[:200]))
    opened.on("pageerror", lambda error: broken.append(str(error)))
    yield opened
    opened.close()
    assert asked and not [url for url in asked if not url.startswith(FROM_HERE)]
    assert not broken


def entries(page: Page, category: str) -> int:
    """Open a category from the menu; how many results it lists."""
    page.reload()
    page.locator("#app nav").get_by_text(category, exact=True).click()
    page.locator("#app nav tbody tr").first.wait_for()
    return page.locator("#app nav tbody tr").count()


def show(page: Page, entry: int) -> None:
    page.locator("#app nav tbody tr").nth(entry).locator("a").first.click()


def fits(page: Page) -> bool:
    width: int = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    return width <= 0


def test_every_category_shows_its_pages_and_figures(report: Path, page: Page) -> None:
    assert report.stat().st_size < 8e6
    page.goto(report.as_uri())
    for name, category in PAGES.items():
        count = entries(page, category)
        assert fits(page)
        drawn = 0
        for entry in range(count):
            show(page, entry)
            shown = page.locator("#app iframe, #app img[src^='data:image/svg']:not(nav img)").last
            shown.wait_for()
            if shown.evaluate("e => e.tagName") == "IMG":
                page.wait_for_function("e => e.naturalWidth > 0", arg=shown.element_handle())
                drawn += 1
                continue
            content = page.frame_locator("#app iframe")
            content.locator("h1").wait_for()
            assert content.locator("html").evaluate("e => e.scrollWidth <= e.clientWidth")
            if name == "charts":
                content.locator(".plot svg g.mark-group").first.wait_for()
        assert (count, drawn) == ((7, 6) if name == "charts" else (1, 0))


def test_the_summarys_figures_are_the_jsons_and_can_be_sorted(
    report: Path, page: Page, lab: Lab
) -> None:
    page.goto((report.parent / "results/report/summary.html").as_uri())
    assert fits(page)
    compared = lab.json("results/comparison.json")["results"]  # its speeds are those of trials
    for row in page.locator("tbody tr").all():
        name = row.locator("th").get_attribute("data-value")
        result: Any = compared[name]
        known = {m: v["value"] for m, v in (result["metrics"] | result["quality"]).items()}
        known["model_bytes"] = sum(file["bytes"] for file in result["model"]["files"])
        known["bits_per_weight"] = result["model"]["bits_per_weight"]
        cells = row.locator("td").all()
        assert len(cells) > 10
        for cell in cells:
            value = cell.get_attribute("data-value") or ""
            expected = known[cell.get_attribute("data-metric") or ""]
            assert float(value) == expected if expected is not None else value == ""
            assert cell.inner_text().strip()
    page.get_by_role("button", name="Model size").click()
    sizes = [
        float(c.get_attribute("data-value") or 0) for c in page.locator("td:nth-child(2)").all()
    ]
    assert len(sizes) == len(VARIANTS) and sizes == sorted(sizes)


def test_every_plot_is_drawn_and_no_page_is_cut(report: Path, page: Page) -> None:
    for name in PAGES:
        page.goto((report.parent / f"results/report/{name}.html").as_uri())
        page.locator("h1").wait_for()
        if name == "charts":
            for figure in CHARTS.keys() - {"accuracy"}:  # it asks no questions
                page.locator(f"#{figure} svg g.mark-group").first.wait_for()
        assert fits(page), name
