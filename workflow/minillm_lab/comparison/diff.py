"""The changes between two runs of the lab, beyond chance and the machine's drift.

Two machines, two days or two builds can be compared, as results folders or published files. A
figure has changed if its two intervals do not explain the difference:

- Times, speeds and memory are compared on the logarithm. The noise of a figure is the standard
  error of its interval, as if the interval were a normal one.
- Speeds and ratios are compared in the state that the machine was in during both runs, by its
  yardsticks. Without such a state they are not compared.
- An interval holds for one state during one run. Between runs the machine itself drifts by up to
  ``DRIFT``, and only a larger difference is claimed. For memory it is ``MEMORY_DRIFT``, which an
  allocator may or may not take.
- Quality is computed and not timed, so divergence, same top token and perplexity are compared chunk
  by chunk of the text, and only the spread of these differences makes them uncertain. A thousandth
  is allowed for the order of summation.
- All figures are judged together (Holm 1979), so two runs of one thing give a false claim in at
  most 5 % of all comparisons, however many figures they hold.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import exp, log, sqrt

import numpy as np
from scipy.stats import norm, t, ttest_1samp

from minillm_lab.comparison.published import (
    QUALITY,
    Figure,
    InState,
    Published,
    Variant,
)
from minillm_lab.comparison.states import NEAR
from minillm_lab.estimates import LEVEL, holm
from minillm_lab.wording import as_code, inert

DRIFT = 0.20  # of times, speeds and ratios between two runs; docs/measurement.md
MEMORY_DRIFT = 0.02
ROUNDING = 0.001  # of a figure of quality; threads and kernels change the order of sums
NORMAL = float(norm.ppf(0.975))
SMALLEST = 1e-12  # time, speed or size; a smaller figure is not a measurement
PROTOCOL = {  # the parts of the protocol that must be equal for a metric to be the same in both
    "load": ("context", "scratch"),
    "memory": ("context", "prompt_tokens", "generated_tokens"),
    "prefill": ("prompt_tokens",),
    "decode": ("prompt_tokens", "generated_tokens"),
    "quality": ("text",),
    "questions": ("questions",),
}


@dataclass(frozen=True)
class Pair:
    """One figure in both runs."""

    variant: str
    metric: str
    kind: str  # metrics, ratios, quality
    before: Figure
    after: Figure
    differences: tuple[float, ...] = ()  # after minus before, chunk by chunk of the text
    levels: tuple[float, ...] = ()  # before, chunk by chunk


@dataclass(frozen=True)
class Change:
    """A compared figure: after over before (for quality, minus), its interval and p-value."""

    pair: Pair
    value: float
    ci95: tuple[float, float]
    p: float


@dataclass(frozen=True)
class Difference:
    """The differences between two runs."""

    identity: list[str]
    changed: list[Change]
    unchanged: list[Change]
    not_compared: list[str]

    @property
    def compared(self) -> list[Change]:
        return [*self.changed, *self.unchanged]

    @property
    def strictest(self) -> float:
        """The p-value that is claimed whatever the others are."""
        return LEVEL / max(1, len(self.compared))

    def too_few_chunks(self) -> list[str]:
        """Variants whose divergence could grow by any share of each chunk's and not be claimed.

        Such a growth spreads over the chunks as the divergence itself does.
        """
        return [
            c.pair.variant
            for c in self.compared
            if c.pair.metric == "kld_mean"
            and len(c.pair.levels) > 1
            and ttest_1samp(c.pair.levels, 0).pvalue > self.strictest
        ]

    def smallest(self, drift: float) -> dict[str, float]:
        """By variant, the smallest change of decode speed (a share) that would have been claimed.

        It is the change that passes the strictest level of Holm's procedure.
        """
        far = float(norm.isf(self.strictest / 2))
        return {
            c.pair.variant: (1 + drift) * (c.ci95[1] / c.value) ** (far / NORMAL) - 1
            for c in self.compared
            if (c.pair.kind, c.pair.metric) == ("metrics", "decode_tokens_per_second")
        }


def needs(kind: str, metric: str) -> tuple[str, ...]:
    """The parts of the protocol that a metric depends on."""
    if kind == "quality":
        return PROTOCOL["questions" if metric in QUALITY[3:] else "quality"]
    if "_at_" in metric:
        return ()  # the prompt's length is in its name
    return PROTOCOL[metric.partition("_")[0]]


def standard_error(figure: Figure) -> float | None:
    """The standard error of a figure's logarithm, by its interval; None if it has none."""
    if figure.ci95 is None or figure.ci95[0] < SMALLEST:
        return None
    return (log(figure.ci95[1]) - log(figure.ci95[0])) / (2 * NORMAL)


def by_ratio(pair: Pair, drift: float) -> Change | None:
    """After over before; None without two intervals above zero."""
    errors = [standard_error(figure) for figure in (pair.before, pair.after)]
    if None in errors:
        return None
    value = log(pair.after.value / pair.before.value)
    error = sqrt(sum(e**2 for e in errors if e is not None))
    allowed = MEMORY_DRIFT if "bytes" in pair.metric else drift
    beyond = max(0.0, abs(value) - log(1 + allowed))
    p = 2 * float(norm.sf(beyond / error)) if error else float(beyond == 0)
    reach = NORMAL * error
    return Change(pair, exp(value), (exp(value - reach), exp(value + reach)), p)


def same_state(old: Variant, new: Variant) -> tuple[InState, InState] | None:
    """The nearest two states of two runs, if they count as one state; else None."""

    def apart(pair: tuple[InState, InState]) -> float:
        a, b = pair
        return max(
            abs(log(a.compute_flops) - log(b.compute_flops)),
            abs(log(a.memory_bytes_per_second) - log(b.memory_bytes_per_second)),
        )

    found = min(product(old.states, new.states), key=apart, default=None)
    return found if found and apart(found) <= NEAR else None


def by_difference(pair: Pair) -> Change | None:
    """After minus before, for quality: chunk by chunk, or else from the two intervals."""
    if len(pair.differences) > 1:
        return by_chunks(pair)
    if pair.before.ci95 is None or pair.after.ci95 is None:
        return None
    value = pair.after.value - pair.before.value
    widths = [f.ci95[1] - f.ci95[0] for f in (pair.before, pair.after) if f.ci95]
    error = sqrt(sum(width**2 for width in widths)) / (2 * NORMAL)
    p = 2 * float(norm.sf(abs(value) / error)) if error else float(value == 0)
    reach = NORMAL * error
    return Change(pair, value, (value - reach, value + reach), p)


def by_chunks(pair: Pair) -> Change:
    """The mean difference between two runs on the same chunks, with Student's interval."""
    each = np.array(pair.differences)
    error, freedom = each.std(ddof=1) / sqrt(len(each)), len(each) - 1
    value, reach = float(each.mean()), float(t.ppf(0.975, freedom) * error)
    size = abs(pair.before.value) if pair.metric != "perplexity_ratio" else 1.0
    beyond = max(0.0, abs(value) - ROUNDING * size)
    p = 2 * float(t.sf(beyond / error, freedom)) if error else float(beyond == 0)
    found = [value, value - reach, value + reach]
    if pair.metric == "perplexity_ratio":  # its chunks are logarithms
        found = [pair.before.value * (exp(x) - 1) for x in found]
    return Change(pair, found[0], (found[1], found[2]), p)


def chunks(metric: str, old: Variant, new: Variant) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """After minus before on each chunk of the same text, and before; empty if they do not pair."""
    key = "surprise" if metric == "perplexity_ratio" else metric
    first, second = (v.quality_by_chunk.get(key, []) for v in (old, new))
    if len(first) != len(second):
        return (), ()
    return tuple(b - a for a, b in zip(first, second, strict=True)), tuple(first)


def pairs(before: Published, after: Published) -> Iterator[Pair | str]:
    """Every figure that both runs hold; or, as text, why figures are not compared."""
    for name, old in before.variants.items():
        new = after.variants.get(name)
        if new is None:
            continue
        if reason := unlike(old, new):
            yield f"{as_code(name)}: {reason}"
            continue
        refused: dict[str, list[str]] = {}
        alone: dict[str, list[str]] = {}
        in_both = same_state(old, new)
        if old.states and new.states and not in_both:
            yield f"{as_code(name)}, speeds: the two runs have no state of the machine in common"
        sources: list[tuple[str, dict[str, Figure], dict[str, Figure]]] = [
            ("metrics", old.metrics, new.metrics),
            ("quality", old.quality, new.quality),
        ]
        if in_both:
            sources.append(("metrics", in_both[0].metrics, in_both[1].metrics))
            if before.baseline == after.baseline:
                sources.append(("ratios", in_both[0].ratios, in_both[1].ratios))
        for kind, figures, others in sources:
            for where, there, away in (("before", figures, others), ("after", others, figures)):
                known = [label(metric) for metric in there if metric not in away]
                if known and figures and others:  # else the whole kind is in one run alone
                    alone.setdefault(where, []).extend(known)
            for metric in [m for m in figures if m in others]:
                differ = [
                    key
                    for key in needs(kind, metric)
                    if getattr(old.protocol, key) != getattr(new.protocol, key)
                ]
                if differ:
                    refused.setdefault(metric, differ)
                else:
                    paired = chunks(metric, old, new) if kind == "quality" else ()
                    yield Pair(name, metric, kind, figures[metric], others[metric], *paired)
        for where, metrics in alone.items():
            yield f"{as_code(name)}, {', '.join(metrics)}: only {where}"
        for metric, differ in refused.items():
            yield f"{as_code(name)}, {label(metric)}: measured with another {' and '.join(differ)}"


def unlike(old: Variant, new: Variant) -> str | None:
    """Why two variants of one name cannot be compared; None if they can."""
    for key in ("model", "quantization", "runtime", "backend"):
        first, second = getattr(old, key), getattr(new, key)
        if first != second:
            return f"another {key} ({inert(first)} → {inert(second)})"
    return None


def label(metric: str) -> str:
    """A metric's name as a person reads it."""
    for ending in ("_tokens_per_second", "_seconds", "_bytes"):
        metric = metric.replace(ending, "")
    return metric.replace("_", " ")


def identity(before: Published, after: Published) -> list[str]:
    """The differences between the runs: machines, versions, files, protocol, variants."""
    lines = []
    for name in before.variants.keys() - after.variants.keys():
        lines.append(f"{as_code(name)}: only before")
    for name in after.variants.keys() - before.variants.keys():
        lines.append(f"{as_code(name)}: only after")
    lines.sort()
    if before.baseline != after.baseline:
        lines.append(f"baseline: {as_code(before.baseline)} → {as_code(after.baseline)}")
    found: dict[str, list[str]] = {}
    for name, old in before.variants.items():
        new = after.variants.get(name)
        for text in differences(old, new) if new else []:
            found.setdefault(text, []).append(as_code(name))
    return lines + [f"{', '.join(names)}: {text}" for text, names in found.items()]


def differences(old: Variant, new: Variant) -> Iterator[str]:
    """The differences of a variant between two runs, in words."""
    if old.machine.fingerprint != new.machine.fingerprint:
        yield f"another machine: {machine(old)} → {machine(new)}"
    elif old.machine.os != new.machine.os:
        yield f"system {inert(old.machine.os)} → {inert(new.machine.os)}"
    if old.versions != new.versions:
        yield f"versions {versions(old)} → {versions(new)}"
    if old.threads != new.threads:
        yield f"threads {old.threads} → {new.threads}"
    if old.settings and new.settings:  # files of before did not tell
        for key in sorted({*old.settings, *new.settings}):
            first, second = (inert(one.settings.get(key, "–")) for one in (old, new))
            if first != second:
                yield f"{inert(key).replace('_', ' ')} {first} → {second}"
    if sorted(old.sha256) != sorted(new.sha256):
        yield "another model file (by its sha256)"
    for key in type(old.protocol).model_fields:
        first, second = getattr(old.protocol, key), getattr(new.protocol, key)
        if first != second and key in ("text", "questions"):
            one_sided = None in (first, second)
            yield f"{key} of quality: {'only in one run' if one_sided else 'not the same'}"
        elif first != second:
            yield f"{key.replace('_', ' ')} {first} → {second}"


def machine(variant: Variant) -> str:
    m = variant.machine
    memory = f"{m.memory_bytes / 2**30:.0f} GiB"
    return f"{inert(m.cpu)}, {m.cores} cores, {memory}, {inert(m.os)} ({as_code(m.fingerprint)})"


def versions(variant: Variant) -> str:
    return ", ".join(f"{inert(n)} {inert(v)}" for n, v in sorted(variant.versions.items()))


def compare_runs(before: Published, after: Published, drift: float = DRIFT) -> Difference:
    """The figures that changed, at a family-wise level of 5 % (Holm's step-down procedure).

    ``drift`` is the share by which speeds may differ between runs without a claim.
    """
    compared, not_compared = [], []
    untested: dict[str, dict[str, None]] = {}  # metrics by variant, each once
    for pair in pairs(before, after):
        if isinstance(pair, str):
            not_compared.append(pair)
            continue
        change = by_difference(pair) if pair.kind == "quality" else by_ratio(pair, drift)
        if change is None:
            untested.setdefault(as_code(pair.variant), {})[label(pair.metric)] = None
        else:
            compared.append(change)
    not_compared += [
        f"{name}, {', '.join(metrics)}: no interval" for name, metrics in untested.items()
    ]
    changed = holm({number: change.p for number, change in enumerate(compared)})
    return Difference(
        identity=identity(before, after),
        changed=[c for number, c in enumerate(compared) if number in changed],
        unchanged=[c for number, c in enumerate(compared) if number not in changed],
        not_compared=not_compared,
    )
