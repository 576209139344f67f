"""The pages that people read: every link leads somewhere; every file they name is there."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    page.relative_to(ROOT)
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md")
    for page in ROOT.glob(pattern)
)
LINK = re.compile(r"\]\(([^()\s]+(?:\([^()]*\))?)[^()]*\)|(?:href|src|srcset)=\"([^\"\s]+)")
NAMED_FILE = re.compile(r"\b((?:tests|workflow|experiments|envs|benchmarks|docs)/[\w./-]+\.\w+)")
NAMED_MODULE = re.compile(r"python -m (minillm_lab[\w.]*)")
NAMED_TEST = re.compile(r"`(?:[\w/]+\.py::)?(test_\w+)…?`")
NAMED_TEST_FILE = re.compile(r"`(test_\w+\.py)\b")
TESTS = {file.name: file.read_text() for file in ROOT.glob("tests/**/test_*.py")}


def without_code(text: str) -> str:
    """Markdown without its fenced blocks of code, in which nothing is a link or a heading."""
    return re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings, and those that it sets itself."""
    text = without_code(page.read_text())
    found: set[str] = set()
    times: Counter[str] = Counter()
    for heading in re.findall(r"^#{1,6} +(.+?)[ #]*$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        found.add(f"{slug}-{times[slug]}" if times[slug] else slug)
        times[slug] += 1
    return found | {*re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text)}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for match in LINK.finditer(without_code((ROOT / page).read_text())):
        link = match[1] or match[2]
        if re.match(r"[a-z]+:", link):
            continue  # another site
        path, _, anchor = link.partition("#")
        target = ROOT / page.parent / path if path else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_file_module_and_test_that_a_page_names_is_there(page: Path) -> None:
    text = (ROOT / page).read_text()
    modules = [name.replace(".", "/") for name in NAMED_MODULE.findall(text)]
    missing = [
        *(name for name in NAMED_FILE.findall(text) if not (ROOT / name).exists()),
        *(name for name in modules if not (ROOT / f"workflow/{name}.py").exists()),
        *(name for name in NAMED_TEST_FILE.findall(text) if name not in TESTS),
        *(
            name
            for name in NAMED_TEST.findall(text)
            if not any(f"def {name}" in tests for tests in TESTS.values())
        ),
    ]
    assert not missing
