"""The rows and cells of the long table."""

from collections.abc import Sequence

from tabulate import tabulate

from minillm_lab.comparison.bound import read_share
from minillm_lab.comparison.factors import SETTINGS as RECORDED
from minillm_lab.comparison.factors import layers_on_gpu
from minillm_lab.comparison.group import LOADS, by_machine, by_rounds, value_of
from minillm_lab.comparison.limits import ACCELERATOR, taken_on_gpu
from minillm_lab.comparison.shapes import Comparison, Ratio
from minillm_lab.estimates import LEVEL
from minillm_lab.report import quality
from minillm_lab.result import Metric, Result, depths
from minillm_lab.wording import inert, number, percent

MOST_COLUMNS = 6
TOLD_APART = 2.0  # loads are ranked where the page would claim a difference of this factor
SCALES = {"MB": 1e-6, "s": 1.0, "ms": 1e3, "t/s": 1.0}
ROWS = {  # metric: (label, unit); the arrow says which way is better
    "memory_after_load_bytes": ("Memory after load ↓", "MB"),
    "memory_after_generation_bytes": ("Memory after generation ↓", "MB"),
    "memory_peak_bytes": ("Memory, peak ↓", "MB"),
    "memory_model_bytes": ("Memory added by the model ↓", "MB"),
    ACCELERATOR: ("Memory on the GPU, peak ↓", "MB"),
    "load_cold_seconds": ("Load, cold cache ↓", "s"),
    "load_warm_seconds": ("Load, warm cache ↓", "s"),
    "generate_seconds": ("Time for {tokens} tokens ↓", "s"),
    "generate_tokens_per_second": ("Throughput ↑", "t/s"),
    "prefill_tokens_per_second": ("Prefill ↑", "t/s"),
    "decode_tokens_per_second": ("Decode ↑", "t/s"),
    "first_token_seconds": ("Time to first token ↓", "ms"),
}

SETTINGS = {  # as a config names them: label, words for their values
    "flash_attention": ("Flash attention", {"enabled": "on", "disabled": "off"}),
    "micro_batch": ("Micro-batch, tokens", dict[str, str]()),
    "mmap": ("File mapped into memory", {"mmap": "yes", "none": "no"}),
    "precision": ("Computed in", dict[str, str]()),
    "kv_cache": ("Keys and values held in", dict[str, str]()),
    "dynamic_quantization": ("Activations rounded in groups of", {"0": "no"}),
}


def holds(result: Result) -> str:
    """What the file holds, largest shares first; flagged where its named type is not most of it."""
    types = {t: s for t, s in result.model.tensor_types.items() if s >= 0.005}
    text = ", ".join(f"{percent(share)} {type_}" for type_, share in types.items())
    return f"⚠ {text}" if result.model.share_of_named_type < 0.5 else text


def unranked(comparison: Comparison, metrics: Sequence[str] = LOADS) -> dict[str, set[str]]:
    """By metric of rounds, the variants of machines where these are too few to rank any.

    There, figures that differ by ``TOLD_APART`` would be tied with the best: nobody reads that so.
    """
    level = max(comparison.cutoff, LEVEL / max(comparison.claims, 1))
    found: dict[str, set[str]] = {metric: set() for metric in metrics}
    for results in by_machine(comparison.results).values():
        for metric in metrics:
            values = {n: v for n, r in results.items() if (v := value_of(r, metric)) is not None}
            if len(values) < 2:
                continue
            first = min(values, key=lambda n: values[n])
            others = {n: results[n] for n in values if n != first}
            tested = by_rounds(others, results[first], metric).values()
            if not tested or max(e.least(level) for e in tested) > TOLD_APART:
                found[metric] |= results.keys()
    return found


def unranked_line(comparison: Comparison) -> str:
    """Which loads are not ranked, and why; empty where all are."""
    found = unranked(comparison)
    names = [n for n, m in (("cold", LOADS[0]), ("warm", LOADS[1])) if found[m]]
    if not names:
        return ""
    which = "Loads" if len(names) == 2 else f"{names[0].capitalize()} loads"
    return f"{which} are not ranked: {by_chance(comparison, found)}."


def by_chance(comparison: Comparison, found: dict[str, set[str]]) -> str:
    """How little the rounds of what is not ranked tell."""
    rounds = {comparison.results[n].protocol["rounds"] for of in found.values() for n in of}
    fewest, most = min(rounds), max(rounds)
    counted = f"{most} rounds" if fewest == most else f"{fewest} to {most} rounds"
    counted = "one round" if most == 1 else counted
    return f"with {counted}, no test tells a factor of two between two variants from chance"


def cell(comparison: Comparison, variant: str, metric: str, unit: str, ranked: bool = True) -> str:
    """A value, its ratio to the baseline in brackets; bold when nothing is better.

    The value alone where variants are not ``ranked`` by it.
    """
    measured = comparison.results[variant].metrics.get(metric)
    if not ranked:
        return shown(measured, None, unit)
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
    size, out = sizes(comparison), unranked(comparison)
    body = [
        ["", *(f"{n} (baseline)" if n == comparison.baseline else n for n in results)],
        *model_rows(results),
        ["Runtime", *(r.runtime["name"] for r in results.values())],
        ["Backend", *(r.runtime["backend"] for r in results.values())],
        ["Weights", *(weights(r) for r in results.values())],
        ["Model size ↓, MB", *(size[n] for n in results)],
        ["Bits per weight", *(f"{r.model.bits_per_weight:.2f}" for r in results.values())],
        ["The file holds", *(holds(r) for r in results.values())],
        *cache_rows(results),
        *layers_rows(results),
        *settings_rows(results),
    ]  # fmt: skip
    for metric, (label, unit) in metric_rows(results).items():
        label = label.format(tokens="/".join(str(t) for t in sorted(tokens)))
        figures = (cell(comparison, n, metric, unit, n not in out.get(metric, ())) for n in results)
        body.append([f"{label}, {unit}", *figures])
    if any(shares := [read_share(comparison, r) for r in results.values()]):
        body.append(
            [
                "Memory read rate in decoding, of the yardstick's",
                *(percent(s) if s else "–" for s in shares),
            ]
        )
    return body + quality.rows(results)


def weights(result: Result) -> str:
    """The type of a result's weights, and for what Transformers computes otherwise, that too."""
    dtype: str | None = result.runtime["settings"].get("dtype")
    name = result.model.type_name
    if dtype is None or dtype in name:
        return name
    return dtype if name == "safetensors" else f"{name}, {dtype}"


def model_rows(results: dict[str, Result]) -> list[list[str]]:
    """The row of the variants' models, where there are several."""
    models = [inert(result.model.name) for result in results.values()]
    return [["Model", *models]] if len({*models}) > 1 else []


def cache_rows(results: dict[str, Result]) -> list[list[str]]:
    """The row of the caches of keys and values: type and size, where a runtime says it."""
    cells = []
    for result in results.values():
        settings = result.runtime["settings"]
        size = settings.get("kv_cache_bytes")
        cells.append(f"{settings['kv_cache']}, {number(size / 1e6)}" if size else "–")
    return [["Cache of keys/values, type, MB", *cells]] if {*cells} - {"–"} else []


def metric_rows(results: dict[str, Result]) -> dict[str, tuple[str, str]]:
    """The rows of what was measured: label and unit of each metric."""
    found = ROWS | depth_rows(results)
    return {m: row for m, row in found.items() if m != ACCELERATOR or on_gpu(results)}


def on_gpu(results: dict[str, Result]) -> bool:
    """Whether any variant took memory on a GPU."""
    return any(map(taken_on_gpu, results.values()))


def layers_rows(results: dict[str, Result]) -> list[list[str]]:
    """The row of the layers on a GPU, where it computes only some of a variant's."""
    some = [layers_on_gpu(result) for result in results.values()]
    cells = []
    for number_, result in zip(some, results.values(), strict=True):
        settings = result.runtime["settings"]
        known = settings.get("gpu_layers", "–")
        cells.append(f"{number_} of {settings['layers'] + 1}" if number_ else str(known))
    return [["Layers on the GPU", *cells]] if any(some) else []


def threads(result: Result) -> str:
    """The threads of decoding, and those of prompts where they are others."""
    of_all, settings = result.runtime["threads"], result.runtime["settings"]
    of_prompts = settings.get("threads_batch", of_all)
    return f"{of_all}" if of_prompts == of_all else f"{of_all} · {of_prompts}"


def chosen_settings(result: Result) -> list[str]:
    """The settings that a variant chose, in a few words each."""
    runtime, settings = result.runtime, result.runtime["settings"]
    found = []
    for key in settings.get("chosen", ()):
        _, words = SETTINGS[key]
        value = str(settings[RECORDED[key]])
        found.append(f"{key} {words.get(value, value)}")
    if (of_prompts := settings.get("threads_batch", runtime["threads"])) != runtime["threads"]:
        found.append(f"threads_batch {of_prompts}")
    cache = settings.get("kv_cache", "f16")
    if runtime["name"] == "llama.cpp" and cache.lower() != "f16":
        found.append(f"kv_cache {cache}")
    return found


def settings_rows(results: dict[str, Result]) -> list[list[str]]:
    """The rows of settings that a variant chose, or in which variants differ."""
    counts = [threads(result) for result in results.values()]
    apart = len({*counts}) > 1 or any("·" in count for count in counts)
    found = [["Threads, decoding · prompts", *counts]] if apart else []
    settings = [result.runtime["settings"] for result in results.values()]
    for key, (label, words) in SETTINGS.items():
        cells = [str(of_one.get(RECORDED[key], "–")) for of_one in settings]
        chosen = any(key in of_one.get("chosen", ()) for of_one in settings)
        differ = key != "kv_cache" and len({*cells} - {"–"}) > 1  # its row has sizes: cache_rows
        if chosen or differ:
            found.append([label, *(words.get(cell, cell) for cell in cells)])
    return found


def depth_rows(results: dict[str, Result]) -> dict[str, tuple[str, str]]:
    """Rows for the prompt lengths at which speed was measured besides, shortest first."""
    lengths = depths(*results.values())
    return {
        f"{what}_tokens_per_second_at_{n}": (f"{what.capitalize()}, prompt of {n} ↑", "t/s")
        for what in ("prefill", "decode")
        for n in lengths
    }


def sizes(comparison: Comparison) -> dict[str, str]:
    """Each variant's size on disk in MB, the smallest in bold."""
    bytes_ = {n: r.model.size for n, r in comparison.results.items()}
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


def drawn(body: list[list[str]]) -> str:
    """A table as Markdown, turned where it has more variants than fit beside each other."""
    if len(body[0]) - 1 > MOST_COLUMNS:
        body = [list(row) for row in zip(*body, strict=True)]
    return tabulate(body[1:], headers=body[0], tablefmt="github", disable_numparse=True)
