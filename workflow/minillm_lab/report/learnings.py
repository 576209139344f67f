"""Key learnings: sentences computed from the figures, each supported by their intervals."""

from string import ascii_uppercase

from minillm_lab.benchmark.collect import UNPACKED
from minillm_lab.comparison.advice import faster, memory_of, speed_of
from minillm_lab.comparison.bound import bytes_per_token, read_share
from minillm_lab.comparison.changes import RECIPE, changes
from minillm_lab.comparison.claims import DECODE
from minillm_lab.comparison.closeness import closer, predicts_better
from minillm_lab.comparison.group import RESOLUTION, Group, by_machine, group_of
from minillm_lab.comparison.shapes import Comparison, Factor
from minillm_lab.experiment.libraries import bits_of
from minillm_lab.experiment.sources import UNQUANTIZED, Model
from minillm_lab.report import quality
from minillm_lab.result import Result
from minillm_lab.wording import inert, number, times


def kinds(comparison: Comparison) -> list[list[str]]:
    """What was found, by kind, the most important kind first."""
    return [
        speedup(comparison),
        larger_no_better(comparison),
        between_models(comparison),
        quality.losses(comparison.results),
        recipes(comparison),
        methods(comparison),
        unpacked(comparison),
        limited(comparison),
        quality.fallbacks(comparison.results),
        load(comparison),
        quantization_alone(comparison),
    ]


def learnings(comparison: Comparison, found: list[list[str]] | None = None) -> list[str]:
    """One sentence per finding, most important first; ``found``: its kinds, where known."""
    every = [sentence for of_kind in found or kinds(comparison) for sentence in of_kind]
    return every or ["One variant alone: nothing to compare."]


def most_important(
    comparison: Comparison, found: list[list[str]] | None = None, count: int = 5
) -> list[str]:
    """The first sentence of each kind of finding, as many as asked for."""
    return [of_kind[0] for of_kind in found or kinds(comparison) if of_kind][:count]


def step(factor: Factor) -> str:
    """A factor of the speed-up: ×2.31 (2.00 to 2.66) from the runtime (`fp16` → `f16`)."""
    tied = "tied with 1, " if factor.decode.tie else ""
    way = f"({tied}`{factor.start}` → `{factor.end}`)"
    return f"{times(factor.decode)} from {cause(factor)} {way}"


def cause(factor: Factor) -> str:
    """What changes in a step: the runtime, the device, quantization, or several of them."""
    return factor.change.replace("runtime", "the runtime").replace("device", "the device")


def speedup(comparison: Comparison) -> list[str]:
    """Where the speed of the fastest comes from, each factor of its own.

    It is the fastest of those that are measurably faster than the baseline: with few trials, a
    still faster one may be tied with it.
    """
    if not any(comparison.factors.get(name) for name in comparison.best.get(DECODE, [])):
        return []
    faster = {
        name: ratio
        for name in comparison.factors
        if (ratio := comparison.ratios[name].get(DECODE)) and not ratio.tie and ratio.value > 1
        if not comparison.results[name].output.flaw
    }
    if not faster:
        return [f"No variant decodes measurably faster than `{comparison.baseline}`."]
    known = [name for name in faster if comparison.factors[name]]
    if not known:
        return []
    name = max(known, key=lambda n: faster[n].value)
    total, steps = faster[name], comparison.factors[name]
    text = f"`{name}` decodes {times(total)} as fast as `{comparison.baseline}`"
    if len(steps) == 1:
        text += f", from {cause(steps[0])}."
    else:
        text += ": " + ", ".join(map(step, steps)) + "."
    if any(" and " in f.change for f in steps):
        text += " What changes together cannot be told apart without a variant between."
    for other, of_other in comparison.factors.items():
        told = other in {name, *(f.end for f in steps)}
        if not told and [f.change for f in of_other] == ["runtime"]:
            factor = of_other[0].decode
            tied = ", which is tied with 1" if factor.tie else ""
            pace = f"{times(factor)} as fast as `{comparison.baseline}`"
            text += f" In another runtime, `{other}` decodes {pace}{tied}."
    return [text]


def quantization_alone(comparison: Comparison) -> list[str]:
    """What quantization itself buys in the same runtime on the same device."""
    found = []
    for name, steps in comparison.factors.items():
        last = next((f for f in steps if f.change == "quantization"), None)
        if last is None or last.decode.ci95 is None:
            continue
        size = comparison.results[name].model.size / comparison.results[last.start].model.size
        gained = "no measurable change of decode speed" if last.decode.tie else (
            f"{times(last.decode)} the decode speed"
        )  # fmt: skip
        found.append(
            f"Quantization alone (`{last.start}` → `{name}`): {100 * size:.0f} % of the size,"
            f" {gained}."
        )
    return found


def recipes(comparison: Comparison) -> list[str]:
    """What recipes gain over stock types, and which tensors cost the most for their weights."""
    found, told = list[str](), set[str]()
    several = len({result.model.name for result in comparison.results.values()}) > 1
    for change in changes(comparison.results):
        if change.setting != RECIPE:
            continue
        model = comparison.results[change.end].model
        low, high = change.ratio.ci95 or (0.0, 1.0)
        verdict = "" if high < 1 else ", so it loses more" if low > 1 else ": no gain is shown"
        found.append(
            f"Recipe `{change.end}` ({change.after.removeprefix('own, ')}) diverges"
            f" ×{quality.cell(change.ratio, 1, 2)} as much as `{change.start}`"
            f" ({change.before}){verdict}."
        )
        costly = quality.costly(model, model.recipe, several) if model.recipe else ""
        if costly and costly not in told:
            told.add(costly)
            found.append(costly)
    return found


def methods(comparison: Comparison) -> list[str]:
    """What one number of bits costs by different methods, where several runtimes have variants."""
    by_bits = dict[tuple[str, str, int], list[tuple[float, str, Result]]]()
    for name, result in comparison.results.items():
        model, bits = result.model, bits_of(result.model.quantization)
        loss, speed = (result.quality or {}).get("kld_mean"), result.metrics[DECODE].value
        if bits and loss and loss.value is not None and speed and not result.output.flaw:
            told = (
                f"`{name}` ({result.runtime['name']}) {quality.plain(loss, 1, 2)} nats,"
                f" {number(model.size / 1e6)} MB, {number(speed)} t/s"
            )
            key = model.name, result.machine["fingerprint"], bits
            by_bits.setdefault(key, []).append((loss.value, told, result))
    return [
        f"{bits} bits by several methods, the least divergence first:"
        f" {'; '.join(told for _, told, _ in sorted(variants, key=lambda one: one[0]))}."
        for (*_, bits), variants in sorted(by_bits.items(), key=lambda one: one[0])
        if len({result.runtime["name"] for *_, result in variants}) > 1
    ]


def load(comparison: Comparison) -> list[str]:
    """How much of a first load is the page cache."""
    slower = {
        n: r for n, r in comparison.cold_loads.items() if r.ci95 and not r.tie and r.value > 1
    }
    if not slower:
        return []
    name = max(slower, key=lambda n: slower[n].value)
    cold, warm = (
        comparison.results[name].metrics[f"load_{how}_seconds"].value or 0
        for how in ("cold", "warm")
    )
    return [
        f"The page cache matters: `{name}` loads in {number(cold)} s from disk and in"
        f" {number(warm)} s when the file has been read before ({times(slower[name])})."
    ]


def limited(comparison: Comparison) -> list[str]:
    """What reading the weights has to do with decode speed: near its limit, or far from it."""
    shares = {n: read_share(comparison, r) for n, r in comparison.results.items()}
    known = {n: s for n, s in shares.items() if s}
    if len(known) < 2:
        return []
    most, least = max(known, key=lambda n: known[n]), min(known, key=lambda n: known[n])
    parts = []
    for name in (most, least):
        result = comparison.results[name]
        read = bytes_per_token(result) or 0
        rate = read * (result.metrics["decode_tokens_per_second"].value or 0)
        share = f"{100 * known[name]:.0f} %"
        others = "".join(
            f", {100 * of_other:.0f} % in state {letter}"
            for number_, letter in enumerate(ascii_uppercase[1:], 1)
            if len(comparison.states) == 1  # a letter is one machine's
            if (of_other := read_share(comparison, result, number_))
        )
        parts.append((f"`{name}`", f"{number(rate / 1e9)} GB/s", share, others))
    near, far = parts
    return [
        f"Memory as a limit: decoding a token reads the weights once. {near[0]} does so at"
        f" {near[1]}, {near[2]} of what the memory yardstick reads{near[3] or ' here'};"
        f" {far[0]} at {far[1]}, {far[2]}{far[3]}."
    ]


def advantages_of(name: str, other: str, group: Group) -> list[str]:
    """What speaks for a variant beside another of its model that is smaller and lost less."""
    a, b = group.results[name], group.results[other]
    found, known = [], faster(name, other, group)
    if known or (known is None and speed_of(a) > speed_of(b)):
        found.append("its speed" if known else "its speed, which was not tested,")
    if memory_of(a) * (1 + RESOLUTION) < memory_of(b):
        found.append("its smaller memory")
    return found


def larger_no_better(comparison: Comparison) -> list[str]:
    """A warning for each quantized file that is larger than another and farther away."""
    found = []
    for results in by_machine(comparison.results).values():
        group = group_of(comparison, results)
        files = {
            n: r
            for n, r in results.items()
            if r.model.format == "gguf"
            and r.model.quantization not in UNQUANTIZED
            and not r.output.flaw
        }
        size = {n: r.model.size for n, r in files.items()}
        for large, a in files.items():
            smaller = [
                n
                for n, b in files.items()
                if size[large] > size[n] * (1 + RESOLUTION) and closer(b, a)
            ]
            if not smaller:
                continue
            lost = {n: (files[n].quality or {})["kld_mean"].value or 0 for n in (large, *smaller)}
            small = min(smaller, key=lambda n: lost[n])
            advice = "the smaller one is the better choice"
            if advantages := advantages_of(large, small, group):
                which = "is its only advantage" if len(advantages) == 1 else "are its advantages"
                advice = f"{' and '.join(advantages)} {which}"
            found.append(
                f"⚠ `{large}` is larger than `{small}` and farther from the reference"
                f" ({lost[large]:.4f} against {lost[small]:.4f} nats): {advice}."
            )
    return found


def between_models(comparison: Comparison) -> list[str]:
    """How well the models' references predict the text, where there are several."""
    found = {
        r.model.name: r
        for r in comparison.results.values()
        if r.quality and "bits_per_byte_reference" in r.quality
    }
    told = [r.protocol["quality"].get("reference") or {} for r in found.values()]
    references = [sorted(reference.get("weights", {}).values()) for reference in told]
    if len(found) < 2 or any(references.count(r) > 1 for r in references if r):
        return []  # one reference says nothing of two models
    bits = {m: (r.quality or {})["bits_per_byte_reference"] for m, r in found.items()}
    ordered = sorted(found, key=lambda model: bits[model].value or 0)
    said = ", ".join(f"{inert(m)} {quality.cell(bits[m], 1, 3)}" for m in ordered)
    best, *rest = (found[m] for m in ordered)
    apart = all(predicts_better(best, other, unquantized=True) for other in rest)
    verdict = f"{inert(ordered[0])} predicts it best" if apart else "none is measurably the best"
    return [
        f"Bits per byte of the evaluation text, by each model's reference: {said}. Of these,"
        f" {verdict}."
    ]


def unpacked(comparison: Comparison) -> list[str]:
    """The caveat of a source that ships only a quantized file."""
    sources = {
        r.model.name: r.model.source
        for r in comparison.results.values()
        if any(warning.startswith(UNPACKED) for warning in r.warnings)
    }
    models = {name: Model.model_validate(source) for name, source in sources.items()}
    return [
        f"{inert(name)} is shipped in {', '.join(model.shipped_gguf)} alone, so its F16 is unpacked"
        " from that: "
        + (
            f"each weight was {model.moved}, so that the shipped grid does not set the order of the"
            " losses (docs/quality.md)."
            if model.moved
            else "its weights lie on the shipped grid, so the losses need not be in the order of a"
            " model that was quantized from full precision."
        )
        for name, model in models.items()
        if model.unpacked
    ]
