"""The last lines of a run: what to take, and where everything is."""

import argparse
import re
from pathlib import Path

from minillm_lab.comparison.shapes import Comparison
from minillm_lab.jobs.command import run, say
from minillm_lab.records import read_record
from minillm_lab.report.page import details_of
from minillm_lab.report.recommendation import recommendation


def closing(comparison: Comparison, page: Path | None) -> str:
    """What to take, as text without Markdown, and where to read more."""
    said = re.sub(r"\\(.)|[*`]", r"\1", recommendation(comparison))
    more = "minillm-lab pick answers for other limits"
    return f"\n{said}\n{page}, {details_of(page)}; {more}." if page else f"\n{said}\n{more}."


def main(arguments: argparse.Namespace) -> None:
    made = arguments.comparison
    results = [path for path in arguments.results if path.exists()]
    current = made.exists() and len(results) == len(arguments.results)
    if current and made.stat().st_mtime >= max(path.stat().st_mtime for path in results):
        say(closing(read_record(made, Comparison), arguments.page))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comparison", type=Path, required=True, help="results/comparison.json")
    parser.add_argument(
        "--results", type=Path, nargs="+", required=True, help="which it must not be older than"
    )
    parser.add_argument("--page", type=Path, help="the page that shows it")
    run(main, parser)
