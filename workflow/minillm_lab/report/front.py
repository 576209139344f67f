"""What people read first: the page's section, and RESULTS.md with everything behind it.

The section is what decides: a recommendation, a picture, a short table, the learnings that matter
most. The long table, warnings, experiments and answers are on the page of details.
"""

import os
import re
from pathlib import Path

from minillm_lab.comparison.group import by_machine
from minillm_lab.comparison.limits import ACCELERATOR
from minillm_lab.comparison.shapes import Comparison
from minillm_lab.quality.verdict import verdict
from minillm_lab.report import picture, quality
from minillm_lab.report.learnings import most_important
from minillm_lab.report.legend import failed_lines, states_in_short
from minillm_lab.report.page import details_of
from minillm_lab.report.recommendation import recommendation
from minillm_lab.report.table import (
    ROWS,
    cell,
    drawn,
    model_rows,
    on_gpu,
    shown,
    sizes,
    unranked,
    unranked_line,
)
from minillm_lab.report.tables import with_failed
from minillm_lab.result import Result

DOCS = {  # how the label of a row begins: where its figure is explained
    "Quality loss": "quality.md#the-verdict",
    "Decode": "measurement.md#the-metrics",
    "Time": "measurement.md#the-metrics",
    "Memory, loaded · after generation": "measurement.md#the-metrics",
    "Memory on the GPU, peak": "measurement.md#the-metrics",
    "Load, cold · warm": "measurement.md#a-round",
}


def front(
    comparison: Comparison,
    page: Path,
    with_picture: bool = True,
    found: list[list[str]] | None = None,
) -> str:
    """The section of a page: what to take, the picture, the short table, what matters most.

    ``found``: the kinds of learnings, where known.
    """
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
    legend = [
        f"×: the ratio to `{comparison.baseline}`; ≈: tied with it. **Bold**: best, or tied with"
        " the best.",
        unranked_line(comparison),
        states_in_short(comparison, f"[{details}]({details}) has those of the others"),
        f"More figures, warnings and answers: [{details}]({details}); every interval:"
        " `comparison.csv` among the results. Other limits: `minillm-lab pick`.",
    ]
    parts.append(" ".join(filter(None, legend)))
    parts += ["\n".join(failed_lines(comparison))] if comparison.failed else []
    parts.append("\n".join(f"- {line}" for line in most_important(comparison, found)))
    return "\n\n".join(parts)


def short(comparison: Comparison, names: list[str], page: Path) -> list[list[str]]:
    """The figures that decide, a row each, of the variants of one machine; the header first."""
    results = {name: comparison.results[name] for name in names}
    tokens = "/".join(map(str, sorted({r.protocol["generated_tokens"] for r in results.values()})))
    size, out = sizes(comparison), unranked(comparison)
    label = ", ".join(ROWS[ACCELERATOR])

    def figures(metric: str, unit: str) -> list[str]:
        return [cell(comparison, name, metric, unit) for name in names]

    def loads(name: str) -> str:
        metrics = (f"load_{how}_seconds" for how in ("cold", "warm"))
        return " · ".join(plain(comparison, name, m, "s", name not in out[m]) for m in metrics)

    def memory(name: str) -> str:
        loaded = plain(comparison, name, "memory_after_load_bytes", "MB")
        return f"{loaded} · {cell(comparison, name, 'memory_after_generation_bytes', 'MB')}"

    rows, of_models = {}, model_rows(results)
    if any(r.quality or r.output.flaw for r in results.values()):
        rows["Quality loss (nats)"] = [loss_in_a_word(r) for r in results.values()]
        if of_models:  # what two models are compared by
            rows[quality.BITS] = [quality.bits(result) for result in results.values()]
    rows |= {
        "Decode ↑, t/s": figures("decode_tokens_per_second", "t/s"),
        f"Time for {tokens} tokens ↓, s (t/s)": [
            f"{plain(comparison, name, 'generate_seconds', 's')}"
            f" ({plain(comparison, name, 'generate_tokens_per_second', 't/s')})"
            for name in names
        ],
        "Time to first token ↓, ms": figures("first_token_seconds", "ms"),
        "Memory, loaded · after generation ↓, MB": [memory(name) for name in names],
        **({label: figures(ACCELERATOR, "MB")} if on_gpu(results) else {}),
        "Model size ↓, MB": [size[name] for name in names],
        "Load, cold · warm ↓, s": [loads(name) for name in names],
        "Backend": [f"{r.runtime['name']}, {r.runtime['backend']}" for r in results.values()],
    }
    header = ["", *(f"{n} (baseline)" if n == comparison.baseline else n for n in names)]
    figures_of = ([linked(label, page), *cells] for label, cells in rows.items())
    return [header, *of_models, *figures_of]


def plain(comparison: Comparison, name: str, metric: str, unit: str, ranked: bool = True) -> str:
    """A value without its ratio; bold where it is the best of those that are ``ranked``."""
    measured = comparison.results[name].metrics.get(metric)
    best = ranked and name in comparison.best.get(metric, [])
    return shown(measured, None, unit, best)


def loss_in_a_word(result: Result) -> str:
    """The loss in a word, with its divergence; a mark where the answer means nothing."""
    if result.output.flaw:
        return "⚠ its answer means nothing"
    word, lost = verdict(result.quality), (result.quality or {}).get("kld_mean")
    if word is None or lost is None:
        return "–"
    return f"{word.removesuffix(' loss')} ({quality.plain(lost, 1.0, 4)})"


def linked(label: str, page: Path) -> str:
    """A row's label, linked to where its figure is explained; not on a page outside the lab."""
    name = next((name for name in DOCS if label.startswith(name)), None)
    if name is None or not page.resolve().is_relative_to(Path.cwd()):
        return label
    docs = Path(os.path.relpath("docs", page.parent)).as_posix()
    words = re.split(r" (?=[↑↓(])", label, maxsplit=1)
    return " ".join([f"[{words[0]}]({docs}/{DOCS[name]})", *words[1:]])
