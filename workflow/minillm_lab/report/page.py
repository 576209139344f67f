"""What stands on the page: its section between two markers, the details and pictures beside it.

The Snakefile asks whether that is what the results hold, so this imports nothing large.
"""

import os
import time
from pathlib import Path

from minillm_lab.jobs.files import write_text

BEGIN = "<!-- minillm-lab results: begin (written by the workflow; edits here are lost) -->"
END = "<!-- minillm-lab results: end -->"


def details_of(page: Path) -> Path:
    """Where the details of a page lie: RESULTS.md of README.md, else <page>-results.md."""
    return page.with_name("RESULTS.md" if page.stem == "README" else f"{page.stem}-results.md")


def pictures(page: Path) -> tuple[Path, Path]:
    """Where a page's picture lies: light, dark."""
    name = f"{page.stem.lower()}-tradeoff"
    return page.parent / "docs" / f"{name}.svg", page.parent / "docs" / f"{name}-dark.svg"


def current(page: Path, texts: list[Path], drawn: list[Path]) -> bool:
    """Whether the page and its details hold their ``texts``, and the pictures lie beside it.

    ``drawn`` is light, dark.
    """
    try:
        for shown, text in zip((page, details_of(page)), texts, strict=True):
            section = shown.read_bytes().partition(BEGIN.encode())[2].partition(END.encode())[0]
            if section.strip() != text.read_bytes().strip():
                return False
        pairs = zip(drawn, pictures(page), strict=True)
        return all(ours.read_bytes() == there.read_bytes() for ours, there in pairs)
    except OSError:
        return False


def edits(page: Path, results: Path, folder: Path, look: bool = True) -> str:
    """The path of a file in ``folder`` that changes when the page is not what the results hold.

    Where they do not hold the page's section yet, the rule that makes it runs anyway. Nothing is
    written where it is not to ``look``: in a job on a cluster's node, while the page is being made.
    """
    path = folder / "-".join(results.parts)
    if not look:
        return str(path)
    texts = [results / "readme.md", results / "details.md"]
    drawn = [results / f"tradeoff{dark}.svg" for dark in ("", "-dark")]
    if not path.exists():
        write_text(path, "")
        os.utime(path, (0, 0))  # older than any section
    if all(file.exists() for file in (*texts, *drawn)) and not current(page, texts, drawn):
        write_text(path, f"{time.time_ns()}\n")
    return str(path)
