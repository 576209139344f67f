"""The comparison as a table: Markdown for people, CSV for programs."""

import csv
import io
from typing import Any

from tabulate import tabulate

from minillm_lab.report import quality
from minillm_lab.report.comparison import Comparison, Precision
from minillm_lab.report.inert import inert
from minillm_lab.result import Result

MOST_COLUMNS = 6
SCALES = {"MB": 1e-6, "s": 1.0, "ms": 1e3, "t/s": 1.0}
ROWS = {  # metric: (label, unit); the arrow says which way is better
    "memory_after_load_bytes": ("Memory after load ↓", "MB"),
    "memory_after_generation_bytes": ("Memory after generation ↓", "MB"),
    "memory_model_bytes": ("What the model costs of it ↓", "MB"),
    "load_cold_seconds": ("Load, cold cache ↓", "s"),
    "load_warm_seconds": ("Load, warm cache ↓", "s"),
    "generate_seconds": ("Time for {tokens} tokens ↓", "s"),
    "generate_tokens_per_second": ("Throughput ↑", "t/s"),
    "prefill_tokens_per_second": ("Prefill ↑", "t/s"),
    "decode_tokens_per_second": ("Decode ↑", "t/s"),
    "first_token_seconds": ("Time to first token ↓", "ms"),
}


def number(value: float) -> str:
    """Three significant digits, never an exponent."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def holds(result: Result) -> str:
    """What the file holds, largest shares first; flagged where it is mostly something else."""
    types = {t: s for t, s in result.model.tensor_types.items() if s >= 0.005}
    text = ", ".join(f"{share:.0%} {type_}".replace("%", " %") for type_, share in types.items())
    return f"⚠ {text}" if quality.share_of_named_type(result) < 0.5 else text


def cell(comparison: Comparison, variant: str, metric: str, unit: str) -> str:
    """A value, its ratio to the baseline in brackets; bold when nothing is better."""
    measured = comparison.results[variant].metrics.get(metric)
    if measured is None or measured.value is None:
        return "–"
    text = number(measured.value * SCALES[unit])
    if variant in comparison.best.get(metric, []):
        text = f"**{text}**"
    ratio = comparison.ratios[variant].get(metric)
    if ratio:
        text += f" ({'≈' if ratio.tie else '×'}{number(ratio.value)})"
    return text


def rows(comparison: Comparison, machine: str | None = None) -> list[list[str]]:
    """The table with a metric a row and a variant a column, its header first.

    With ``machine`` (a fingerprint), of the variants measured there alone.
    """
    results = {
        n: r for n, r in comparison.results.items() if machine in (None, r.machine["fingerprint"])
    }
    tokens = {r.protocol["generated_tokens"] for r in results.values()}
    size = sizes(comparison)
    body = [
        ["", *(f"{n} (baseline)" if n == comparison.baseline else n for n in results)],
        ["Runtime", *(r.runtime["name"] for r in results.values())],
        ["Backend", *(r.runtime["backend"] for r in results.values())],
        ["Weights", *(r.runtime["settings"].get("dtype", r.model.quantization)
                      for r in results.values())],
        ["Model size ↓, MB", *(size[n] for n in results)],
        ["Bits per weight", *(f"{r.model.bits_per_weight:.2f}" for r in results.values())],
        ["The file holds", *(holds(r) for r in results.values())],
    ]  # fmt: skip
    for metric, (label, unit) in (ROWS | depth_rows(results)).items():
        label = label.format(tokens="/".join(str(t) for t in sorted(tokens)))
        body.append([f"{label}, {unit}", *(cell(comparison, n, metric, unit) for n in results)])
    return body + quality.rows(results)


def depth_rows(results: dict[str, Result]) -> dict[str, tuple[str, str]]:
    """Rows for the prompt lengths at which speed was measured besides, shortest first."""
    lengths = depths(*results.values())
    return {
        f"{what}_tokens_per_second_at_{n}": (f"{what.capitalize()}, prompt of {n} ↑", "t/s")
        for what in ("prefill", "decode")
        for n in lengths
    }


def depths(*results: Result) -> list[int]:
    """The prompt lengths at which speed was measured besides the prompt, shortest first."""
    metrics = {m for r in results for m in r.metrics if "_at_" in m}
    return sorted({int(metric.rpartition("_at_")[2]) for metric in metrics})


def size_of(result: Result) -> int:
    """Bytes of a variant's weights on disk."""
    return sum(file.bytes for file in result.model.files)


def sizes(comparison: Comparison) -> dict[str, str]:
    """Each variant's size on disk in MB, the smallest in bold."""
    bytes_ = {n: size_of(r) for n, r in comparison.results.items()}
    sound = [n for n, r in comparison.results.items() if not r.output.flaw]
    smallest = min((bytes_[n] for n in sound), default=0)
    base = bytes_.get(comparison.baseline)
    return {
        name: (
            f"**{number(size / 1e6)}**"
            if size == smallest and name in sound
            else number(size / 1e6)
        )
        + ("" if name == comparison.baseline or not base else f" (×{number(size / base)})")
        for name, size in bytes_.items()
    }


def markdown(comparison: Comparison) -> str:
    """The Markdown table with its legend: a variant a column up to six, else a variant a row.

    Figures of two machines never stand in one table: each machine has its own.
    """
    machines = list(dict.fromkeys(r.machine["fingerprint"] for r in comparison.results.values()))
    if not machines:
        return "\n".join(["No variant has a result.", "", *failed_lines(comparison)])
    if len(machines) == 1:
        return f"{drawn(with_failed(rows(comparison), comparison))}\n\n{legend(comparison)}"
    tables = [f"**Machine `{m}`**\n\n{drawn(rows(comparison, m))}" for m in machines]
    return "\n\n".join([*tables, legend(comparison)])


def with_failed(body: list[list[str]], comparison: Comparison) -> list[list[str]]:
    """The table with a column for each variant that failed, and nothing in it but that."""
    for name in comparison.failed:
        column = [name, "**failed**", *["–"] * (len(body) - 2)]
        body = [[*row, cell] for row, cell in zip(body, column, strict=True)]
    return body


def failed_lines(comparison: Comparison) -> list[str]:
    """Why variants have no figures."""
    return [
        f"- **Failed**, `{name}`: {inert(reason)}" for name, reason in comparison.failed.items()
    ]


def drawn(body: list[list[str]]) -> str:
    """A table as Markdown, turned where it has more variants than fit beside each other."""
    if len(body[0]) - 1 > MOST_COLUMNS:
        body = [list(row) for row in zip(*body, strict=True)]
    return tabulate(body[1:], headers=body[0], tablefmt="github", disable_numparse=True)


def legend(comparison: Comparison) -> str:
    """How to read the table, and what made it: machine, versions, command, date."""
    lines = [
        f"Values are medians; in brackets the ratio to `{comparison.baseline}`, paired within"
        " rounds; **bold** is best, or not to be told from the best; ≈ means that the data do not"
        " support a difference. ⚠ marks a file that is mostly something else than its name says.",
        "",
        *failed_lines(comparison),
        *machine_lines(comparison),
        *protocol_lines(comparison),
    ]
    for text, names in warned(comparison.results).items():
        lines.append(f"- Warning, {', '.join(f'`{name}`' for name in names)}: {text}")
    return "\n".join(lines)


def warned(results: dict[str, Result]) -> dict[str, list[str]]:
    """Each warning, and the variants that it is on."""
    found: dict[str, list[str]] = {}
    for name, result in results.items():
        for warning in result.warnings:
            found.setdefault(warning, []).append(name)
    return found


def protocol_lines(comparison: Comparison) -> list[str]:
    """What was measured how: threads, versions, quality, command, date, peers, precision."""
    results = list(comparison.results.values())
    first = results[0]
    versions = dict(sorted(item for r in results for item in r.runtime["version"].items()))
    threads = sorted({r.runtime["threads"] for r in results})
    protocol = first.protocol
    lines = [
        f"- Threads: {', '.join(map(str, threads))}; prompt {protocol['prompt_tokens']} tokens;"
        f" rounds × repetitions: {protocol['rounds']} × {protocol['repetitions']}",
        f"- Versions: {', '.join(f'{n} {v}' for n, v in versions.items())};"
        f" Python {first.machine['python']}",
        f"- Command: `{comparison.command}`",
        f"- Measured: {max(r.measured_at for r in results)[:10]}",
    ]
    lines[-2:-2] = quality.legend(comparison.results)
    lines += [peer_line(name, peer) for name, peer in comparison.peers.items()]
    if len({r.machine["fingerprint"] for r in results}) > 1:
        lines.append("- Measured on several machines: ratios are only taken within one.")
    if comparison.precision:
        lines.append(precision_line(comparison.precision))
    return lines


def peer_line(name: str, peer: dict[str, Any]) -> str:
    """How the lab's own speed of a variant compares with llama-bench's."""
    speeds = []
    for phase in ("decode", "prefill"):
        low, high = peer[phase]["ratio_ci95"] or (float("nan"),) * 2
        speeds.append(f"{phase} ×{peer[phase]['ratio']:.3f} ({low:.3f} to {high:.3f})")
    return (
        f"- `{name}` against llama-bench {peer['build_commit']}, {peer['pairs']} pairs:"
        f" {', '.join(speeds)}"
    )


def precision_line(precision: "Precision") -> str:
    """Whether the precision asked for is reached, and what would reach it."""
    goal = f"±{precision.goal:.1%}"
    known = {n: reach for n, reach in precision.reached.items() if reach is not None}
    if not known or precision.rounds is None:
        return f"- Precision: a goal of {goal} needs at least two rounds; set rounds to 3 or more."
    worst = max(known, key=lambda n: known[n])
    if known[worst] <= precision.goal:
        return f"- Precision: every decode ratio is known within {goal}, as asked."
    return (
        f"- Precision: the decode ratio of `{worst}` is known to ±{known[worst]:.1%}, {goal} was"
        f" asked; about {precision.rounds} rounds in all would reach it"
        f" (`--config rounds={precision.rounds}` runs only the new ones)."
    )


def machine_lines(comparison: Comparison) -> list[str]:
    """Every machine that something was measured on."""
    return list(dict.fromkeys(machine_line(r) for r in comparison.results.values()))


def machine_line(result: Result) -> str:
    """The machine of a result in one line."""
    m = result.machine
    return (
        f"- Machine `{m['fingerprint']}`: {m['cpu']}, {m['cores']} cores,"
        f" {m['memory_bytes'] / 2**30:.0f} GiB, {m['os']}"
    )


def csv_of(comparison: Comparison) -> str:
    """One line per variant and metric: value, unit, interval, n, ratio to the baseline."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = "variant metric value unit ci95_low ci95_high n ratio ratio_ci95_low ratio_ci95_high"
    writer.writerow(columns.split())
    for name, result in comparison.results.items():
        writer.writerow([name, "model_bytes", size_of(result), "B", "", "", 1, "", "", ""])
        writer.writerow(
            [name, "bits_per_weight", result.model.bits_per_weight, "bit", "", "", 1, "", "", ""]
        )
        for metric, m in result.metrics.items():
            ratio = comparison.ratios[name].get(metric)
            writer.writerow(
                [
                    name, metric, m.value, m.unit, *(m.ci95 or ("", "")), m.n,
                    ratio.value if ratio else "", *((ratio and ratio.ci95) or ("", "")),
                ]
            )  # fmt: skip
        writer.writerows(quality.csv_rows(name, result))
    for name, reason in comparison.failed.items():
        writer.writerow([name, "failed", reason, *[""] * 7])
    return out.getvalue()
