"""The real report in a real browser: every category, the JSON's figures, nothing from elsewhere."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from conftest import Lab, tiny_config
from minillm_lab.comparison.shapes import Comparison
from minillm_lab.records import read_record
from minillm_lab.report import CHARTS, PAGES
from minillm_lab.report.recommendation import recommendation
from minillm_lab.wording import number
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
    long = {"long_contexts": [64, 128], "long_text": "text.txt"}
    quality = {"text": "text.txt", "questions": None, "context": 64} | long
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
        assert (count, drawn) == ((8, 7) if name == "charts" else (1, 0))


DECIDING = ("Quality loss", "Decode", "Memory after generation", "Model size")


def test_opening_the_report_shows_what_to_take_at_once(report: Path, page: Page, lab: Lab) -> None:
    comparison = read_record(lab.path("results/comparison.json"), Comparison)
    page.goto(report.as_uri())
    opening = page.locator("#app .prose")
    said = opening.locator("p").first
    said.wait_for()
    assert said.inner_text() == re.sub(r"[*`]", "", recommendation(comparison))
    place = said.bounding_box()
    assert place and place["y"] > 0 and place["y"] + place["height"] < 800
    for row, (name, result) in zip(
        opening.locator("tbody tr").all(), comparison.results.items(), strict=True
    ):
        assert row.locator("th").inner_text().removesuffix(" (baseline)") == name
        cells = [cell.inner_text() for cell in row.locator("td").all()]
        value = result.metrics["decode_tokens_per_second"].value
        assert len(cells) == len(DECIDING) and cells[1].split()[0] == (
            number(value) if value else "–"
        )
    assert opening.locator("li").count() >= 2
    assert opening.evaluate("e => e.scrollWidth <= e.clientWidth") and fits(page)
    right = opening.evaluate("e => e.getBoundingClientRect().right - innerWidth")
    assert right <= 0


def test_a_report_of_results_without_an_opening_shows_none(lab: Lab, browser: Browser) -> None:
    opening, aside = lab.path("results/report/opening.html"), lab.path("aside.html")
    opening.rename(aside)
    try:
        lab.snakemake("--report", "without.html")
    finally:
        aside.rename(opening)
    page = browser.new_page()
    page.goto(lab.path("without.html").as_uri())
    shown = page.locator("#app .prose")
    shown.get_by_text("1. Summary").wait_for()
    assert "Recommended" not in shown.inner_text() and not shown.locator("table").count()
    page.close()


def test_the_columns_that_decide_are_seen_without_scrolling(report: Path, browser: Browser) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(report.as_uri())
    entries(page, PAGES["summary"])
    show(page, 0)
    heads = page.frame_locator("#app iframe").locator("thead th")
    heads.first.wait_for()
    labels = [head.inner_text() for head in heads.all()]
    assert len(labels) > 10 and labels[0].startswith("Variant")
    for label, name in zip(labels[1:], DECIDING, strict=False):
        assert label.startswith(name)
    last = heads.nth(len(DECIDING)).bounding_box()
    assert last and last["x"] + last["width"] <= 1280
    page.close()


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
    shown = page.locator("td[data-metric=model_bytes]")
    sizes = [float(cell.get_attribute("data-value") or 0) for cell in shown.all()]
    assert len(sizes) == len(VARIANTS) and sizes == sorted(sizes)


def test_every_plot_is_drawn_and_no_page_is_cut(report: Path, page: Page) -> None:
    for name in PAGES:
        page.goto((report.parent / f"results/report/{name}.html").as_uri())
        page.locator("h1").wait_for()
        if name == "charts":
            for figure in CHARTS.keys() - {"accuracy", "questions", "recipes"}:  # it has none
                page.locator(f"#{figure} svg g.mark-group").first.wait_for()
        assert fits(page), name
