"""All variants of an experiment together: ratios to the baseline, and where they come from."""

from typing import Any

from pydantic import Field

from minillm_lab import statistics
from minillm_lab.config import UNQUANTIZED
from minillm_lab.result import Record, Result

METRICS_COMPARED = (
    "load_cold_seconds",
    "load_warm_seconds",
    "memory_after_load_bytes",
    "memory_after_generation_bytes",
    "memory_model_bytes",
    "memory_peak_bytes",
    "first_token_seconds",
    "prefill_tokens_per_second",
    "decode_tokens_per_second",
    "generate_seconds",
    "generate_tokens_per_second",
)


def metrics_compared(results: dict[str, Result]) -> list[str]:
    """The metrics that are compared: those above, and speeds at the prompt lengths measured."""
    depths = [m for r in results.values() for m in r.metrics if "_at_" in m]
    return [*METRICS_COMPARED, *dict.fromkeys(depths)]


class Ratio(Record):
    """One variant's metric over another's, paired within rounds."""

    value: float
    ci95: tuple[float, float] | None
    tie: bool = Field(description="the data do not support a difference")


class Factor(Record):
    """One step between the baseline and a variant, and what it does to decode speed."""

    change: str = Field(description="runtime, device, quantization, or several together")
    start: str = Field(description="the variant before the step")
    end: str = Field(description="the variant after it")
    decode: Ratio


class Precision(Record):
    """How near the decode ratios are to the precision asked for."""

    goal: float = Field(description="half-width of the interval over the value: 0.02 for 2%")
    reached: dict[str, float | None] = Field(description="by variant; null: one round only")
    rounds: int | None = Field(description="rounds in all that would reach it for every variant")


class Comparison(Record):
    """``results/comparison.json``."""

    schema_version: int = 1
    baseline: str
    command: str
    results: dict[str, Result] = Field(description="by variant, in the config's order")
    ratios: dict[str, dict[str, Ratio]] = Field(description="to the baseline, by variant")
    best: dict[str, list[str]] = Field(description="by metric: the best, and who ties with it")
    factors: dict[str, list[Factor]]
    peers: dict[str, dict[str, Any]] = Field(description="against llama-bench, by variant")
    precision: Precision | None = Field(description="null: no goal was set")
    failed: dict[str, str] = Field({}, description="why a variant has no result, by variant")


def ratio(result: Result, baseline: Result, metric: str) -> Ratio | None:
    """A paired ratio; None where one side is missing or the machines differ."""
    if metric not in result.metrics or metric not in baseline.metrics:
        return None
    ours, theirs = result.metrics[metric].samples, baseline.metrics[metric].samples
    same_machine = result.machine["fingerprint"] == baseline.machine["fingerprint"]
    rounds = min(len(ours), len(theirs))
    if not rounds or not same_machine:
        return None
    estimate = statistics.paired_ratio(ours[:rounds], theirs[:rounds])
    return Ratio(value=estimate.value, ci95=estimate.ci95, tie=not estimate.excludes(1.0))


def best(results: dict[str, Result], metric: str) -> list[str]:
    """The variants with the best value: one, or all that the data cannot tell from it.

    A variant whose answer means nothing is not among them.
    """
    measured = {n: r.metrics.get(metric) for n, r in results.items() if not r.output.flaw}
    values = {n: m.value for n, m in measured.items() if m and m.value is not None}
    if len(values) < 2:
        return []
    choose = max if "per_second" in metric else min
    first = choose(values, key=lambda name: values[name])
    ties = {n: ratio(results[n], results[first], metric) for n in values}
    return [n for n, r in ties.items() if n == first or (r is not None and r.tie)]


def by_machine(results: dict[str, Result]) -> dict[str, dict[str, Result]]:
    """Results by the fingerprint of their machine: figures of two machines are never compared."""
    groups: dict[str, dict[str, Result]] = {}
    for name, result in results.items():
        groups.setdefault(result.machine["fingerprint"], {})[name] = result
    return groups


def precision(results: dict[str, Result], baseline: str, goal: float) -> Precision:
    """Whether every decode ratio to the baseline is known as well as was asked."""
    metric = "decode_tokens_per_second"
    reached: dict[str, float | None] = {}
    needed: list[int | None] = []
    for name, result in results.items():
        found = ratio(result, results[baseline], metric) if name != baseline else None
        if found is None:
            continue
        rounds = min(
            len(result.metrics[metric].samples), len(results[baseline].metrics[metric].samples)
        )
        estimate = statistics.Estimate(found.value, found.ci95, rounds)
        reached[name] = found.ci95[1] / found.value - 1 if found.ci95 else None
        needed.append(statistics.rounds_needed(estimate, rounds, goal))
    known = [n for n in needed if n is not None]
    return Precision(
        goal=goal, reached=reached, rounds=max(known) if len(known) == len(needed) > 0 else None
    )


def same_conditions(result: Result) -> tuple[str, str, int]:
    """What must be equal where runtime, device and quantization are told apart."""
    return result.model.name, result.machine["fingerprint"], result.runtime["threads"]


def factors(name: str, baseline: str, results: dict[str, Result]) -> list[Factor]:
    """How much of a variant's speed-up is runtime, device and quantization.

    The steps go through variants of the experiment that differ in one thing at a time; a step
    with no such variant is merged with the next, and its name says so.
    """

    start_from, ours = results[baseline], results[name]
    if same_conditions(start_from) != same_conditions(ours):
        return []  # another model, machine or number of threads is none of these three changes
    if start_from.output.flaw or ours.output.flaw:
        return []

    def key(result: Result) -> tuple[str, str, str]:
        form = result.model.quantization
        plain = form == "safetensors" or form in UNQUANTIZED
        return result.runtime["name"], result.runtime["backend"], "unquantized" if plain else form

    comparable = {
        key(r): n
        for n, r in reversed(results.items())
        if same_conditions(r) == same_conditions(ours) and not r.output.flaw
    }
    comparable |= {key(start_from): baseline, key(ours): name}
    start, end = key(start_from), key(ours)
    steps, changes, at = [], [], start
    for i, change in enumerate(("runtime", "device", "quantization")):
        here = end[: i + 1] + start[i + 1 :]
        if here[i] != start[i]:
            changes.append(change)
        if not changes or here not in comparable:
            continue
        decode = ratio(
            results[comparable[here]], results[comparable[at]], "decode_tokens_per_second"
        )
        if decode:
            steps.append(
                Factor(
                    change=" and ".join(changes),
                    start=comparable[at],
                    end=comparable[here],
                    decode=decode,
                )
            )
        at, changes = here, []
    return steps


def compare(
    results: dict[str, Result],
    baseline: str,
    command: str,
    goal: float | None = None,
    peers: dict[str, dict[str, Any]] | None = None,
    failed: dict[str, str] | None = None,
) -> Comparison:
    """Everything that the table, the README and the learnings say, computed once.

    Without a result of the baseline there are no ratios.
    """
    ratios: dict[str, dict[str, Ratio]] = {name: {} for name in results}
    others = [name for name in results if name != baseline and baseline in results]
    for name in others:
        found = {m: ratio(results[name], results[baseline], m) for m in metrics_compared(results)}
        ratios[name] = {m: r for m, r in found.items() if r}
    return Comparison(
        baseline=baseline,
        command=command,
        results=results,
        ratios=ratios,
        best={
            m: [name for group in by_machine(results).values() for name in best(group, m)]
            for m in metrics_compared(results)
        },
        factors={n: factors(n, baseline, results) for n in others},
        peers=peers or {},
        precision=precision(results, baseline, goal) if goal and baseline in results else None,
        failed=failed or {},
    )
