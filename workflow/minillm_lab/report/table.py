"""The comparison as a table: Markdown for people, CSV for programs."""

import csv
import io
from string import ascii_uppercase
from typing import Any

from tabulate import tabulate

from minillm_lab import statistics
from minillm_lab.report import quality
from minillm_lab.report.comparison import DECODE, Comparison, Precision, Ratio, StateFigures
from minillm_lab.report.inert import inert, without_folders
from minillm_lab.result import Metric, Result
from minillm_lab.runtimes import BYTES
from minillm_lab.statistics import Estimate

MOST_COLUMNS = 6
SCALES = {"MB": 1e-6, "s": 1.0, "ms": 1e3, "t/s": 1.0}
ROWS = {  # metric: (label, unit); the arrow says which way is better
    "memory_after_load_bytes": ("Memory after load ↓", "MB"),
    "memory_after_generation_bytes": ("Memory after generation ↓", "MB"),
    "memory_model_bytes": ("Memory added by the model ↓", "MB"),
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
    value = float(f"{value:.3g}") if value < 1000 else value
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def times(ratio: Ratio | Estimate) -> str:
    """A ratio with its interval: ×2.90 (2.71 to 3.08)."""
    interval = f" ({number(ratio.ci95[0])} to {number(ratio.ci95[1])})" if ratio.ci95 else ""
    return f"×{number(ratio.value)}{interval}"


def holds(result: Result) -> str:
    """What the file holds, largest shares first; flagged where it is mostly something else."""
    types = {t: s for t, s in result.model.tensor_types.items() if s >= 0.005}
    text = ", ".join(f"{share:.0%} {type_}".replace("%", " %") for type_, share in types.items())
    return f"⚠ {text}" if quality.share_of_named_type(result) < 0.5 else text


def cell(comparison: Comparison, variant: str, metric: str, unit: str) -> str:
    """A value, its ratio to the baseline in brackets; bold when nothing is better."""
    measured = comparison.results[variant].metrics.get(metric)
    best = variant in comparison.best.get(metric, [])
    return shown(measured, comparison.ratios[variant].get(metric), unit, best)


def shown(measured: Metric | None, ratio: Ratio | None, unit: str, best: bool = False) -> str:
    """A value and its ratio to the baseline; – where it was not measured."""
    if measured is None or measured.value is None:
        return "–"
    text = number(measured.value * SCALES[unit])
    text = f"**{text}**" if best else text
    return text + (f" ({'≈' if ratio.tie else '×'}{number(ratio.value)})" if ratio else "")


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
    if any(shares := [read_share(comparison, r) for r in results.values()]):
        body.append(
            [
                "Memory read in decoding, of the yardstick",
                *(f"{s:.0%}".replace("%", " %") if s else "–" for s in shares),
            ]
        )
    return body + quality.rows(results)


def bytes_per_token(result: Result) -> float | None:
    """Bytes of weights that decoding a token reads, as they are held; None where not known.

    What a token reads of the context is not in it.
    """
    read, held = result.model.read_bytes, BYTES.get(result.runtime["settings"].get("dtype", ""))
    return read * 8 * held / result.model.bits_per_weight if read and held else read


def read_share(comparison: Comparison, result: Result) -> float | None:
    """The memory that decoding reads per second over what the yardstick reads, in one state."""
    states = comparison.states.get(result.machine["fingerprint"])
    decode, read = result.metrics[DECODE].value, bytes_per_token(result)
    if not states or not decode or not read or result.runtime["backend"] != "CPU":
        return None
    return read * decode / states[0].memory_bytes_per_second


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
    found = {
        (int(metric.rpartition("_at_")[2]), r.protocol["prompt_tokens"])
        for r in results
        for metric in r.metrics
        if "_at_" in metric
    }
    return sorted({length for length, prompt in found if length != prompt})


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
    level = f"{100 * statistics.LEVEL:g} %"
    lines = [
        f"In brackets: the ratio to `{comparison.baseline}`. Speeds and their ratios come from"
        " trials (both variants loaded, taking turns), loads and memory from rounds (fresh"
        " processes). **Bold** is best or tied with the best; ≈ marks a ratio tied with 1. The"
        f" {comparison.claims} comparisons of speeds and loads on this page are corrected together"
        f" (Holm, {level})."
        " ⚠ marks a file that is mostly something else than its name says.",
        "",
        *failed_lines(comparison),
        *machine_lines(comparison),
        *state_lines(comparison),
        *protocol_lines(comparison),
    ]
    for text, names in warned(comparison.results).items():
        lines.append(f"- Warning, {', '.join(f'`{name}`' for name in names)}: {text}")
    return "\n".join([*lines, *other_states(comparison)])


def state_lines(comparison: Comparison) -> list[str]:
    """In which states each machine was, and whose figures stand in the table."""
    lines = []
    for fingerprint, states in comparison.states.items():
        on = f" on `{fingerprint}`" if len(comparison.states) > 1 else ""
        if len(states) == 1:
            lines.append(
                f"- State{on}: one, {described(states[0])}. Intervals hold for this machine in"
                " this state during this run."
            )
        elif states:
            listed = "; ".join(
                f"{letter}, {state.share:.0%} of the readings: {described(state)}"
                for letter, state in zip(ascii_uppercase, states, strict=False)
            ).replace("%", " %")
            lines.append(
                f"- States{on}: the machine was in {len(states)} ({listed}). Speeds and ratios in"
                " the table are of state A, and hold for this machine in that state during this"
                " run; those of the others stand below."
            )
    return lines


def described(state: StateFigures) -> str:
    """A state by its yardsticks."""
    return (
        f"{number(state.compute_flops / 1e9)} GF/s in cache,"
        f" {number(state.memory_bytes_per_second / 1e9)} GB/s from memory"
    )


def other_states(comparison: Comparison) -> list[str]:
    """A small table of speeds for each state but the most frequent."""
    parts = []
    for fingerprint, states in comparison.states.items():
        for letter, state in list(zip(ascii_uppercase, states, strict=False))[1:]:
            on = f" of `{fingerprint}`" if len(comparison.states) > 1 else ""
            names = list(state.metrics)
            body = [["", *(f"{n} (baseline)" if n == comparison.baseline else n for n in names)]]
            for metric, (label, unit) in ROWS.items():
                if any(metric in found for found in state.metrics.values()):
                    tokens = comparison.results[names[0]].protocol["generated_tokens"]
                    cells = (
                        shown(state.metrics[n].get(metric), state.ratios[n].get(metric), unit)
                        for n in names
                    )
                    body.append([f"{label.format(tokens=tokens)}, {unit}", *cells])
            counted = ", ".join(f"{n} {state.trials.get(n, 0)}" for n in names if n in state.trials)
            parts += ["", f"**State {letter}**{on} (trials: {counted})", "", drawn(body)]
    return parts


def warned(results: dict[str, Result]) -> dict[str, list[str]]:
    """Each warning, and the variants that it is on."""
    found: dict[str, list[str]] = {}
    for name, result in results.items():
        for warning in result.warnings:
            found.setdefault(without_folders(warning), []).append(name)
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
        f" trials: {max(r.protocol['trials'] for r in results)};"
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
    if not known or precision.trials is None:
        return f"- Precision: a goal of {goal} needs at least two trials; set trials to 6 or more."
    worst = max(known, key=lambda n: known[n])
    if known[worst] <= precision.goal:
        return f"- Precision: every decode ratio is known within {goal}, as asked."
    return (
        f"- Precision: the decode ratio of `{worst}` is known to ±{known[worst]:.1%}, {goal} was"
        f" asked; about {precision.trials} trials in all would reach it: an estimate, if they"
        " scatter and find the machine in this state as these did (`--config trials=N` runs only"
        " the new ones)."
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
