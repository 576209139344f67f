"""The sections of a page and its details, between two markers; the rest is never touched."""

import argparse
import re
from pathlib import Path

from minillm_lab.comparison.shapes import Comparison
from minillm_lab.jobs.command import run, say
from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import write_text
from minillm_lab.records import read_record
from minillm_lab.report import changes, picture, tables
from minillm_lab.report.front import front
from minillm_lab.report.learnings import kinds, learnings
from minillm_lab.report.page import BEGIN, END, details_of
from minillm_lab.report.recommendation import explained
from minillm_lab.result import Result
from minillm_lab.wording import number


def details(comparison: Comparison, found: list[list[str]] | None = None) -> str:
    """Everything that was found: why what is recommended, the long table, variants, learnings.

    ``found``: the kinds of learnings, where known.
    """
    if not comparison.results:
        return f"### Comparison\n\n{tables.markdown(comparison)}"
    said = "\n".join(f"- {line}" for line in learnings(comparison, found))
    return "\n\n".join(
        [
            *("### Recommendation", explained(comparison)),
            *("### Comparison", tables.markdown(comparison)),
            *changes.section(comparison.results),
            *("### Variants", *(experiment(r) for r in comparison.results.values())),
            *("### Key learnings", said),
        ]
    )


def experiment(result: Result) -> str:
    """A variant in one paragraph, and what it answered."""
    m, model, runtime = result.metrics, result.model, result.runtime
    versions = ", ".join(f"{name} {version}" for name, version in runtime["version"].items())
    timed = [(how, m[f"load_{how}_seconds"].value) for how in ("cold", "warm")]
    loads = ", ".join(f"{number(s)} s {how}" for how, s in timed if s is not None)
    text = (
        f"**{result.variant}**: {model.name}, {model.type_name}"
        f" ({number(result.model.size / 1e6)} MB,"
        f" {model.bits_per_weight:.2f} bits per weight) in {runtime['name']} ({versions}) on"
        f" {runtime['backend']}, {runtime['threads']} threads."
        f" Load {loads or 'not measured'};"
        f" memory {megabytes(result, 'memory_before_load_bytes')} MB before,"
        f" {megabytes(result, 'memory_after_load_bytes')} MB after it and"
        f" {megabytes(result, 'memory_after_generation_bytes')} MB after generation"
    )
    if (seconds := m["generate_seconds"].value) is not None:
        text += (
            f"; {result.protocol['generated_tokens']} tokens in {number(seconds)} s"
            f" ({number(m['generate_tokens_per_second'].value or 0)} t/s)"
        )
    text += "."
    if result.quality and "answer_first_divergence_token" in result.quality:
        beside = {name: metric.value or 0 for name, metric in result.quality.items()}
        text += (
            f" The first {beside['answer_first_divergence_token']:.0f} tokens of its answer are the"
            f" reference's, {beside['answer_tokens_in_common']:.0%} of all its tokens are in the"
            f" reference's answer too, and {beside['answer_repetition']:.0%} of its 4-grams repeat."
        ).replace("%", " %")
    said = result.output.text.strip().replace("<!--", "<! --")  # never a marker of ours
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", said)), default=0))
    answer = f"{fence}text\n{said}\n{fence}"
    return f"{text}\n\n<details><summary>Its answer</summary>\n\n{answer}\n\n</details>"


def megabytes(result: Result, metric: str) -> str:
    return number((result.metrics[metric].value or 0) / 1e6)


def replaced(page: str, text: str, name: str) -> str:
    """The page with the text between its markers replaced; every other character stays."""
    begins, ends = page.count(BEGIN), page.count(END)
    if begins != 1 or ends != 1 or page.index(BEGIN) > page.index(END):
        raise LabError(
            f"{name}: needs these two lines, once each, where the results belong:\n{BEGIN}\n{END}"
        )
    head, _, rest = page.partition(BEGIN)
    tail = rest.partition(END)[2]
    return f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}"


def update(page: Path, text: str, check: bool = False) -> bool:
    """Put the section into the page if it is not there already; say whether it was current.

    A page that does not exist is begun with the section alone. With ``check`` nothing is written.
    """
    if page.exists():
        before = page.read_bytes().decode("utf-8")
    else:
        title = page.stem.capitalize() if page.stem.isupper() else page.stem
        before = f"# {title}\n\n{BEGIN}\n{END}\n"
    after = replaced(before, text, str(page))
    current = page.exists() and before == after
    if not current and not check:
        write_text(page, after)
    return current


def update_both(page: Path, texts: tuple[str, str]) -> bool:
    """Update a page and its details; write neither where one lacks its markers."""
    pages = [*zip((page, details_of(page)), texts, strict=True)]
    current = all([update(where, text, check=True) for where, text in pages])
    if not current:
        for where, text in pages:
            update(where, text)
    return current


def main(arguments: argparse.Namespace) -> None:
    comparison = read_record(arguments.comparison, Comparison)
    found = kinds(comparison) if comparison.results else None
    texts = front(comparison, arguments.page, found=found), details(comparison, found)
    current = update_both(arguments.page, texts)
    current = picture.put(arguments.page, (arguments.light, arguments.dark)) and current
    if not current:
        say(f"updated {arguments.page} and {details_of(arguments.page)}")
    for path, text in zip(arguments.output, texts, strict=False):
        write_text(path, text + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comparison", type=Path, required=True, help="results/comparison.json")
    parser.add_argument("--light", type=Path, required=True, help="the picture, drawn")
    parser.add_argument("--dark", type=Path, required=True, help="the same for dark pages")
    parser.add_argument("--page", type=Path, required=True, help="the page to keep current")
    parser.add_argument(
        "--output", type=Path, nargs=2, default=[], help="where both sections are kept as well"
    )
    run(main, parser)
