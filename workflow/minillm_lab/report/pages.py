"""The report's pages: summary, charts, answers, details; each one HTML file that needs no network.

What a model said, and every name, goes through templates that escape it. The templates and the
captions are in workflow/report/.
"""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from minillm_lab.comparison.group import by_machine
from minillm_lab.comparison.shapes import Comparison
from minillm_lab.jobs.command import run
from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import write_text
from minillm_lab.records import Output, QualityMetric, read_record
from minillm_lab.report import CHARTS, changes, legend, table
from minillm_lab.report.charts.catalogue import chart
from minillm_lab.report.charts.draw import THEMES
from minillm_lab.report.charts.parts import NARROW, WIDE
from minillm_lab.report.front import loss_in_a_word
from minillm_lab.report.learnings import learnings, most_important
from minillm_lab.report.quality import BITS
from minillm_lab.report.quality import ROWS as QUALITY
from minillm_lab.report.quality import bits as quality_bits
from minillm_lab.report.quality import cell as quality_cell
from minillm_lab.report.quality import plain as quality_plain
from minillm_lab.report.recommendation import recommendation
from minillm_lab.result import Metric, Result
from minillm_lab.wording import number

OTHERS = "RESULTS.md beside the page has those of the others"


def marked(text: str) -> Markup:
    """A sentence of the Markdown pages: code and bold, and what a backslash keeps from being it."""
    found = Markup()
    for token in re.finditer(r"\\(.)|`([^`]*)`|\*\*(.+?)\*\*|(.)", text, re.DOTALL):
        kind = token.lastindex
        part = token[kind or 0]
        if kind == 2:
            found += Markup("<code>{}</code>").format(part)
        elif kind == 3:
            found += Markup("<strong>{}</strong>").format(marked(part))
        else:
            found += escape(part)
    return found


def paragraphs(text: str) -> Markup:
    """A caption's paragraphs; captions are plain text, which is reStructuredText as well."""
    found = (Markup('<p class="quiet">{}</p>').format(p) for p in text.strip().split("\n\n"))
    return Markup("\n").join(found)


def measured_cell(
    name: str, metric: Metric | QualityMetric | None, text: str, scale: float = 1.0
) -> dict[str, str]:
    """A cell of the summary: the text, the JSON's own value to sort by, the interval.

    The interval is in the column's unit, which is ``scale`` times the JSON's.
    """
    value = "" if metric is None or metric.value is None else repr(metric.value)
    interval = "measured once: no interval"
    if metric and metric.ci95:
        ends = (scale * end for end in metric.ci95)
        low, high = (f"{end:.4g}" if abs(end) < 1000 else f"{end:.0f}" for end in ends)
        interval = f"95 % from {low} to {high}"
    return {"metric": name, "value": value, "text": text, "interval": interval}


def deciding(comparison: Comparison) -> dict[str, Callable[[str], dict[str, str]]]:
    """The columns that decide: by label, the cell of a variant. Loss, speed, memory, size."""
    size, results = table.sizes(comparison), comparison.results

    def loss(name: str) -> dict[str, str]:
        lost = (results[name].quality or {}).get("kld_mean")
        return measured_cell("kld_mean", lost, loss_in_a_word(results[name]))

    def measured(metric: str, unit: str) -> Callable[[str], dict[str, str]]:
        def cell(name: str) -> dict[str, str]:
            value, ratio = results[name].metrics[metric], comparison.ratios[name].get(metric)
            shown = table.shown(value, ratio, unit)
            return measured_cell(metric, value, shown, table.SCALES[unit])

        return cell

    def bytes_of(name: str) -> dict[str, str]:
        return counted_cell("model_bytes", results[name].model.size, size[name].replace("*", ""))

    def bits(name: str) -> dict[str, str]:
        measured = (results[name].quality or {}).get("bits_per_byte")
        return measured_cell("bits_per_byte", measured, quality_bits(results[name]))

    known = any(r.quality or r.output.flaw for r in results.values())
    of_quality = {"Quality loss (KL divergence ↓, nats)": loss} if known else {}
    if table.model_rows(results):  # what several models are compared by
        of_quality[BITS] = bits
    return of_quality | {
        "Decode ↑, t/s": measured("decode_tokens_per_second", "t/s"),
        "Memory after generation ↓, MB": measured("memory_after_generation_bytes", "MB"),
        "Model size ↓, MB": bytes_of,
    }


def counted_cell(name: str, value: float, text: str) -> dict[str, str]:
    """A cell of what is read from a file and has no interval."""
    return {
        "metric": name,
        "value": repr(value),
        "text": text,
        "interval": "counted, not measured",
    }


def summary(comparison: Comparison) -> dict[str, Any]:
    """Rows by machine, the columns that decide first, learnings and warnings."""
    results, first = comparison.results, deciding(comparison)
    speed = table.metric_rows(results)
    quality = {
        n: r for n, r in QUALITY.items() if any(n in (v.quality or {}) for v in results.values())
    }
    tokens = "/".join(
        str(t) for t in sorted({r.protocol["generated_tokens"] for r in results.values()})
    )
    for metric in ("decode_tokens_per_second", "memory_after_generation_bytes"):
        del speed[metric]
    quality.pop("kld_mean", None)
    if BITS in first:
        quality.pop("bits_per_byte", None)
    columns = [*first, "Bits per weight"]
    columns += [f"{label.format(tokens=tokens)}, {unit}" for label, unit in speed.values()]
    columns += [label for label, _, _ in quality.values()]

    def cells(variant: str, result: Result) -> list[dict[str, str]]:
        bits = result.model.bits_per_weight
        found = [cell(variant) for cell in first.values()]
        found.append(counted_cell("bits_per_weight", bits, f"{bits:.2f}"))
        for name, (_, unit) in speed.items():
            metric = result.metrics.get(name)
            shown = table.shown(metric, None, unit)
            found.append(measured_cell(name, metric, shown, table.SCALES[unit]))
        for name, (_, factor, digits) in quality.items():
            measured = (result.quality or {}).get(name)
            shown = quality_plain(measured, factor, digits)
            found.append(measured_cell(name, measured, shown, factor))
        return found

    return {
        "title": "Summary",
        "baseline": comparison.baseline,
        "columns": columns,
        "machines": {
            machine: [
                {"variant": n, "runtime": r.runtime["name"], "cells": cells(n, r)}
                for n, r in group.items()
            ]
            for machine, group in by_machine(results).items()
        },
        "states": legend.states_in_short(comparison, OTHERS),
        "learnings": learnings(comparison),
        "warnings": legend.warned(results),
    }


def opening(comparison: Comparison) -> dict[str, Any]:
    """What the report shows before anything is clicked."""
    columns = deciding(comparison)
    return {
        "recommended": recommendation(comparison).split("\n\n"),
        "columns": list(columns),
        "baseline": comparison.baseline,
        "machines": {
            machine: {n: [cell(n)["text"] for cell in columns.values()] for n in group}
            for machine, group in by_machine(comparison.results).items()
        },
        "states": legend.states_in_short(comparison, OTHERS),
        "learnings": most_important(comparison, count=3),
    }


def charts(comparison: Comparison, names: list[str]) -> dict[str, Any]:
    """Each chart's specification in two widths, and once what draws them."""

    def spec(name: str, width: int) -> Any:
        drawn = chart(name, comparison, width).to_dict()
        return {key: value for key, value in drawn.items() if key != "title"}  # the page has it

    stacked = THEMES["light"]["legend"] | {
        "columns": 1,
        "layout": {"bottom": {"direction": "vertical", "margin": 12}},
    }
    short = THEMES["light"]["axis"] | {"labelLimit": 80}
    program: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return {
        "title": "Charts",
        "charts": [{"name": name, "title": CHARTS[name]} for name in names],
        "specs": {name: {"wide": spec(name, WIDE), "narrow": spec(name, NARROW)} for name in names},
        "wide": THEMES["light"],
        "narrow": THEMES["light"] | {"padding": 4, "legend": stacked, "axis": short},
        "program": program.replace("</script", "<\\/script"),
    }


def agreed(text: str, other: str) -> str:
    """What two texts begin with alike."""
    n = min(len(text), len(other))
    return text[: next((i for i in range(n) if text[i] != other[i]), n)]


def answers(comparison: Comparison, references: dict[str, Output]) -> dict[str, Any]:
    """Each variant's answer beside its reference's, split where the texts part."""
    found = []
    for name, result in comparison.results.items():
        text, reference = result.output.text, references.get(result.model.name)
        metric = (result.quality or {}).get("answer_first_divergence_token")
        common = agreed(text, reference.text) if reference else text
        said = "The reference's answer is missing."
        if metric and metric.value is not None:
            same = metric.value >= metric.n
            said = f"Its first {metric.value:.0f} of {metric.n} tokens are the reference's."
            said = f"All its {metric.n} tokens are the reference's." if same else said
        found.append(
            {
                "variant": name,
                "said": said,
                "common": common,
                "own": text[len(common) :],
                "reference": reference.text[len(common) :] if reference else None,
            }
        )
    return {"title": "Answers", "answers": found, **losses(comparison)}


def losses(comparison: Comparison) -> dict[str, Any]:
    """Where each variant's divergence is largest: parts of the text, and single tokens."""
    results = comparison.results
    measured = {name: r.quality_by_section for name, r in results.items()}
    sections = dict.fromkeys(section for found in measured.values() for section in found)
    return {
        "sections": list(sections),
        "by_section": {
            name: [quality_cell(found.get(section), 1, 4) for section in sections]
            for name, found in measured.items()
            if found
        },
        "hurt_most": {n: r.quality_hurt_most for n, r in results.items() if r.quality_hurt_most},
    }


def details(comparison: Comparison) -> dict[str, Any]:
    """What each file holds, the machine, the runtimes, the protocol."""
    return {
        "title": "Files and machine",
        "results": comparison.results,
        "machines": [line.removeprefix("- ") for line in legend.machine_lines(comparison)],
        "protocol": [line.removeprefix("- ") for line in legend.protocol_lines(comparison)],
        "holds": table.holds,
        "changes": changes.rows(comparison.results),
        "changed": {"head": changes.HEAD, "caption": changes.CAPTION},
        "megabytes": lambda result: number(result.model.size / 1e6),
    }


def page(name: str, context: dict[str, Any], folder: Path) -> str:
    """One page from its template in ``folder``, where the captions lie as well."""
    environment = Environment(
        loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["marked"] = marked

    def caption(of: str) -> Markup:
        return paragraphs((folder / f"{of}.rst").read_text(encoding="utf-8"))

    return environment.get_template(f"{name}.html").render(context | {"caption": caption}) + "\n"


def main(arguments: argparse.Namespace) -> None:
    comparison = read_record(arguments.comparison, Comparison)
    read = {path.stem: read_record(path, Output) for path in arguments.answers}
    references = {model: answer for model, answer in read.items() if not answer.flaw}
    contexts = {
        "summary": lambda: summary(comparison),
        "charts": lambda: charts(comparison, arguments.charts),
        "answers": lambda: answers(comparison, references),
        "details": lambda: details(comparison),
        "opening": lambda: opening(comparison),
    }
    for path in arguments.pages:
        if path.stem not in contexts:
            raise LabError(f"{path}: no such page; pages: {', '.join(contexts)}")
        write_text(path, page(path.stem, contexts[path.stem](), arguments.templates))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comparison", type=Path, required=True, help="results/comparison.json")
    parser.add_argument("--answers", type=Path, nargs="*", default=[], help="the references'")
    parser.add_argument("--charts", nargs="+", required=True, choices=CHARTS)
    parser.add_argument("--templates", type=Path, required=True, help="templates and captions")
    parser.add_argument("--pages", type=Path, nargs="+", required=True, help="summary.html, …")
    run(main, parser)
