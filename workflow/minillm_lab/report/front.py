"""What people read first: the page's section, and RESULTS.md with everything behind it.

The section is what decides: a recommendation, a picture, a short table, the learnings that matter
most. The long table, warnings, experiments and answers are on the page of details.
"""

import os
import re
from pathlib import Path

from minillm_lab.comparison.group import by_machine
from minillm_lab.comparison.shapes import Comparison
from minillm_lab.quality.verdict import verdict
from minillm_lab.report import picture, quality
from minillm_lab.report.learnings import most_important
from minillm_lab.report.legend import failed_lines
from minillm_lab.report.page import details_of
from minillm_lab.report.recommendation import recommendation
from minillm_lab.report.table import cell, drawn, shown, sizes
from minillm_lab.report.tables import with_failed
from minillm_lab.result import Result

DOCS = {  # label of a row: where its figure is explained
    "Memory after load": "measurement.md#the-metrics",
    "Memory after generation": "measurement.md#the-metrics",
    "Load, cold · warm cache": "measurement.md#a-round",
    "Decode": "measurement.md#the-metrics",
    "Time to first token": "measurement.md#the-metrics",
    "Quality (KL divergence, nats)": "quality.md#the-verdict",
}


def front(comparison: Comparison, page: Path, with_picture: bool = True) -> str:
    """The section of a page: what to take, the picture, the short table, what matters most."""
    if not comparison.results:
        return "\n\n".join(["No variant has a result.", "\n".join(failed_lines(comparison))])
    details = details_of(page).name
    parts = [recommendation(comparison)]
    parts += [picture.element(comparison, page)] if with_picture else []
    machines = by_machine(comparison.results)
    for fingerprint, results in machines.items():
        body = short(comparison, list(results), page)
        if len(machines) > 1:
            parts += [f"**Machine `{fingerprint}`**", drawn(body)]
        else:
            parts.append(drawn(with_failed(body, comparison)))
    parts.append(
        f"In brackets: the ratio to `{comparison.baseline}`. **Bold** is best or tied with the"
        " best; ≈ marks a ratio tied with 1. Intervals, warnings, all figures and answers:"
        f" [{details}]({details})."
    )
    parts += ["\n".join(failed_lines(comparison))] if comparison.failed else []
    parts.append("\n".join(f"- {line}" for line in most_important(comparison)))
    return "\n\n".join(parts)


def short(comparison: Comparison, names: list[str], page: Path) -> list[list[str]]:
    """The figures that decide, a row each, of the variants of one machine; the header first."""
    results = {name: comparison.results[name] for name in names}
    tokens = "/".join(map(str, sorted({r.protocol["generated_tokens"] for r in results.values()})))
    size = sizes(comparison)

    def figures(metric: str, unit: str) -> list[str]:
        return [cell(comparison, name, metric, unit) for name in names]

    rows = {
        "Model size ↓, MB": [size[name] for name in names],
        "Memory after load ↓, MB": figures("memory_after_load_bytes", "MB"),
        "Memory after generation ↓, MB": figures("memory_after_generation_bytes", "MB"),
        "Load, cold · warm cache ↓, s": [
            " · ".join(
                plain(comparison, name, f"load_{how}_seconds", "s") for how in ("cold", "warm")
            )
            for name in names
        ],
        "Decode ↑, t/s": figures("decode_tokens_per_second", "t/s"),
        "Time to first token ↓, ms": figures("first_token_seconds", "ms"),
        f"Time for {tokens} tokens ↓, s (throughput, t/s)": [
            f"{plain(comparison, name, 'generate_seconds', 's')}"
            f" ({plain(comparison, name, 'generate_tokens_per_second', 't/s')})"
            for name in names
        ],
        "Backend": [f"{r.runtime['name']}, {r.runtime['backend']}" for r in results.values()],
    }
    if any(r.quality for r in results.values()):
        rows["Quality (KL divergence, nats)"] = [said(r) for r in results.values()]
    header = ["", *(f"{n} (baseline)" if n == comparison.baseline else n for n in names)]
    return [header, *([linked(label, page), *cells] for label, cells in rows.items())]


def plain(comparison: Comparison, name: str, metric: str, unit: str) -> str:
    """A value without its ratio."""
    measured = comparison.results[name].metrics.get(metric)
    return shown(measured, None, unit, best=name in comparison.best.get(metric, []))


def said(result: Result) -> str:
    """The verdict with the divergence behind it, and a mark where the answer means nothing."""
    if result.output.flaw:
        return "⚠ its answer means nothing"
    word, lost = verdict(result.quality), (result.quality or {}).get("kld_mean")
    if word is None or lost is None:
        return "–"
    return f"{word} ({quality.plain(lost, 1.0, 4)})"


def linked(label: str, page: Path) -> str:
    """A row's label, linked to where its figure is explained."""
    name = re.split(r" [↓↑],", label)[0]
    if name not in DOCS:
        return label
    docs = Path(os.path.relpath("docs", page.parent)).as_posix()
    return label.replace(name, f"[{name}]({docs}/{DOCS[name]})", 1)
