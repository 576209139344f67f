"""All variants of an experiment together: ratios to the baseline, and where they come from.

Times and speeds that trials measure have their ratios from trials; loads, from rounds of the same
number; memory is one figure over another, and differs where it differs by more than ``RESOLUTION``.
Whatever the page calls different or best holds for all such claims together (Holm 1979).
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import cache
from math import ceil
from statistics import median
from typing import Any

from pydantic import Field

from minillm_lab import statistics
from minillm_lab.config import UNQUANTIZED
from minillm_lab.records import Record
from minillm_lab.report.trials import METRICS as TRIED
from minillm_lab.report.trials import InState, by_state
from minillm_lab.result import Metric, Result
from minillm_lab.statistics import LEVEL, Estimate, holm, quotient

LOADS = ("load_cold_seconds", "load_warm_seconds")
MEMORY = (
    "memory_after_load_bytes",
    "memory_after_generation_bytes",
    "memory_model_bytes",
    "memory_peak_bytes",
)
METRICS_COMPARED = (*LOADS, *MEMORY, *TRIED)
DECODE = "decode_tokens_per_second"
RESOLUTION = 0.02  # of memory: an allocator takes that much more or less
HOUR = 3600.0  # seconds between two rounds, beyond which they form no ratio
Key = tuple[str, ...]  # of a claim: what is claimed, where, of which variant and metric


class Ratio(Record):
    """One variant's metric over another's, with its 95 % interval; null: it was not tested."""

    value: float
    ci95: tuple[float, float] | None
    tie: bool = Field(description="tested, and the data do not support a difference")


class Factor(Record):
    """One step between the baseline and a variant, and what it does to decode speed."""

    change: str = Field(description="runtime, device, quantization, or several together")
    start: str = Field(description="the variant before the step")
    end: str = Field(description="the variant after it")
    decode: Ratio


class Precision(Record):
    """How near the decode ratios are to the precision asked for."""

    goal: float = Field(description="half-width of the interval over the value: 0.02 for 2%")
    reached: dict[str, float | None] = Field(description="by variant; null: one trial only")
    trials: int | None = Field(description="trials in all that would reach it for every variant")


class StateFigures(Record):
    """A state of the machine, and the figures of trials in it."""

    compute_flops: float = Field(description="median of the compute yardstick in this state")
    memory_bytes_per_second: float = Field(description="median of the memory yardstick in it")
    share: float = Field(description="of all readings of the yardsticks")
    trials: dict[str, int] = Field(description="by variant")
    metrics: dict[str, dict[str, Metric]] = Field(description="by variant, by metric")
    ratios: dict[str, dict[str, Ratio]] = Field(description="to the baseline, by variant")


class Comparison(Record):
    """``results/comparison.json``.

    Speeds in ``results`` are those of trials in the most frequent state of their machine.
    """

    schema_version: int = 2
    baseline: str
    command: str
    results: dict[str, Result] = Field(description="by variant, in the config's order")
    ratios: dict[str, dict[str, Ratio]] = Field(description="to the baseline, by variant")
    best: dict[str, list[str]] = Field(description="by metric: the best, and who ties with it")
    factors: dict[str, list[Factor]]
    cold_loads: dict[str, Ratio] = Field(description="cold over warm load, by variant")
    states: dict[str, list[StateFigures]] = Field(
        description="by the machine's fingerprint, the most frequent first"
    )
    claims: int = Field(description="how many comparisons the page makes")
    cutoff: float = Field(description="the largest p-value of what the page claims; 0: nothing")
    peers: dict[str, dict[str, Any]] = Field(description="against llama-bench, by variant")
    precision: Precision | None = Field(description="null: no goal was set")
    failed: dict[str, str] = Field({}, description="why a variant has no result, by variant")


def by_machine(results: dict[str, Result]) -> dict[str, dict[str, Result]]:
    """Results by the fingerprint of their machine: figures of two machines are never compared."""
    groups: dict[str, dict[str, Result]] = {}
    for name, result in results.items():
        groups.setdefault(result.machine["fingerprint"], {})[name] = result
    return groups


def same_hour(a: Result, b: Result) -> list[int]:
    """The rounds of two results that were measured within an hour of each other, from 0 on."""
    times = zip(a.round_times, b.round_times, strict=False)
    apart = [datetime.fromisoformat(x) - datetime.fromisoformat(y) for x, y in times]
    return [i for i, t in enumerate(apart) if abs(t.total_seconds()) <= HOUR]


def by_rounds(results: dict[str, Result], over: Result, metric: str) -> dict[str, Estimate]:
    """Ratios to one result, each from rounds of the same number, where both have the metric."""
    samples = {}
    for name, result in results.items():
        if metric not in result.metrics or metric not in over.metrics:
            continue
        ours, theirs = result.metrics[metric].samples, over.metrics[metric].samples
        within = [i for i in same_hour(result, over) if i < min(len(ours), len(theirs))]
        if both := [(ours[i], theirs[i]) for i in within if ours[i] and theirs[i]]:
            samples[name] = [median(a) / median(b) for a, b in both]
    return statistics.together(samples)


class Group:
    """The results of one machine, and every ratio between them as an estimate.

    ``cutoff``: the largest p-value of a difference that is claimed.
    """

    def __init__(self, results: dict[str, Result], baseline: str, cutoff: float = LEVEL) -> None:
        self.results, self.baseline, self.cutoff = results, baseline, cutoff
        self.states = by_state(results, baseline)
        self.ratios = cache(self._ratios)

    @property
    def main(self) -> InState | None:
        """The state in which the machine was most of the time; None: there was no trial."""
        return self.states[0] if self.states else None

    def _ratios(self, metric: str) -> dict[str, Estimate]:
        """Ratios to the baseline, by variant, the baseline's own (1, without error) among them."""
        base = self.results.get(self.baseline)
        one = {self.baseline: Estimate(1.0, None, 1, 0.0)}
        if metric in TRIED:
            tried = self.main.ratios[metric] if self.main else {}
            untried = {n: r for n, r in self.results.items() if r.no_trials}
            by_round = one | by_rounds(untried, base, metric) if base and untried else {}
            return by_round | tried
        if metric in LOADS and base:
            others = {n: r for n, r in self.results.items() if n != self.baseline}
            return one | by_rounds(others, base, metric)
        return {}

    def best(
        self, metric: str, names: Iterable[str] | None = None
    ) -> tuple[str | None, dict[str, float | None]]:
        """The variant with the best value, and the p-value of each other's difference from it.

        A variant whose answer means nothing is not among them.
        """
        among = self.results if names is None else names
        sound = {n: self.results[n] for n in among if not self.results[n].output.flaw}
        choose = max if "per_second" in metric else min
        if metric in TRIED:
            ratios = {n: e for n, e in self.ratios(metric).items() if n in sound}
            if len(ratios) < 2:
                return None, {}
            first = choose(ratios, key=lambda n: ratios[n].value)
            others = {n: e for n, e in ratios.items() if n != first}
            return first, {n: quotient(e, ratios[first]).p() for n, e in others.items()}
        values = {n: v for n, r in sound.items() if (v := value_of(r, metric)) is not None}
        if len(values) < 2:
            return None, {}
        first = choose(values, key=lambda n: values[n])
        if metric in MEMORY:
            return first, {
                n: float(v <= values[first] * (1 + RESOLUTION))
                for n, v in values.items()
                if n != first
            }
        rest = {n: sound[n] for n in values if n != first}
        return first, {n: e.p() for n, e in by_rounds(rest, sound[first], metric).items()}

    def tied(self, metric: str, names: Iterable[str] | None = None) -> list[str]:
        """The best of some variants, and those that tie with it; empty where nothing was tested."""
        first, others = self.best(metric, names)
        claimed = {n for n, p in others.items() if p is not None and p <= self.cutoff}
        return ties(first, others, claimed)


def group_of(comparison: Comparison, results: dict[str, Result]) -> Group:
    """Some results of one machine, held to be different as the comparison's page does."""
    return Group(results, comparison.baseline, comparison.cutoff)


def ties(first: str | None, others: dict[str, float | None], claimed: set[str]) -> list[str]:
    """The best and who ties with it: what was not tested is not tied."""
    if first is None or all(p is None for p in others.values()):
        return []
    return [first, *(n for n, p in others.items() if p is not None and n not in claimed)]


def value_of(result: Result, metric: str) -> float | None:
    """A metric's value; None where it was not measured."""
    measured = result.metrics.get(metric)
    return measured.value if measured else None


def measured_in(state: InState, metric: str, name: str) -> Metric | None:
    """A variant's speed in a state; its samples are those of its trials, else the baseline's."""
    found = state.speeds[metric].get(name)
    if found is None:
        return None
    own = [[t.speeds[metric]] for t in state.trials.get(name, [])]
    every = [[t.baseline_speeds[metric]] for ts in state.trials.values() for t in ts]
    samples = own or every
    return Metric(
        value=found.value, unit=TRIED[metric], ci95=found.ci95, n=len(samples), samples=samples
    )


def with_speeds_of_trials(result: Result, group: Group) -> Result:
    """A result whose speeds are those of trials in its machine's most frequent state.

    Where it has trials and none counts, its speeds are withheld, and a warning says why.
    """
    name, metrics = result.variant, dict(result.metrics)
    warnings = list(result.warnings)
    if result.no_trials or not any(r.trials for r in group.results.values()):
        return result
    for metric in TRIED:
        nothing = Metric(value=None, unit=TRIED[metric], ci95=None, n=0, samples=[])
        found = measured_in(group.main, metric, name) if group.main else None
        metrics[metric] = found or nothing
    if not result.trials and metrics[DECODE].value is None:
        warnings.append("no speeds: there is no trial of it that counts")
    elif metrics[DECODE].value is None:
        told = [t.disturbed for t in result.trials if t.disturbed]
        why = told[0] if told else "the machine was in another state, or changed it, in every trial"
        tried = len({t.trial for t in result.trials})
        warnings.append(f"no speeds and ratios: none of {tried} trials counts: {why}")
    return result.model_copy(update={"metrics": metrics, "warnings": warnings})


def same_conditions(result: Result) -> tuple[str, str, int]:
    """What must be equal where runtime, device and quantization are told apart."""
    return result.model.name, result.machine["fingerprint"], result.runtime["threads"]


def steps(name: str, baseline: str, results: dict[str, Result]) -> list[tuple[str, str, str]]:
    """(change, start, end): the way from the baseline to a variant, one change at a time.

    The steps go through variants of the experiment that differ in runtime, device or quantization
    alone; a step with no such variant is merged with the next, and its name says so.
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
    found, changes, at = [], [], start
    for i, change in enumerate(("runtime", "device", "quantization")):
        here = end[: i + 1] + start[i + 1 :]
        if here[i] != start[i]:
            changes.append(change)
        if not changes or here not in comparable:
            continue
        found.append((" and ".join(changes), comparable[at], comparable[here]))
        at, changes = here, []
    return found


def in_all(needed: int | None, counted: int, taken: int) -> int | None:
    """How many trials bring ``needed`` of them into one state, where ``counted`` of ``taken`` were.

    More than were taken, unless those were enough.
    """
    if needed is None or needed <= counted:
        return needed and max(needed, taken)
    return max(ceil(needed * max(taken, counted) / counted), taken + 1)


def precision(groups: list[Group], baseline: str, goal: float) -> Precision:
    """Whether every decode ratio to the baseline is known as well as was asked."""
    found: dict[str, Estimate] = {}
    needed: list[int | None] = []
    for group in groups:
        for name, ratio in group.ratios(DECODE).items():
            if name != baseline:
                found[name] = ratio
                taken = group.results[name].protocol.get("trials", 0)
                needed.append(in_all(statistics.needed(ratio, goal), ratio.n, taken))
    known = [n for n in needed if n is not None]
    return Precision(
        goal=goal,
        reached={n: e.ci95[1] / e.value - 1 if e.ci95 else None for n, e in found.items()},
        trials=max(known) if len(known) == len(needed) > 0 else None,
    )


class Page:
    """Everything that is claimed of all machines, judged together."""

    def __init__(self, results: dict[str, Result], baseline: str) -> None:
        self.groups = {f: Group(rs, baseline) for f, rs in by_machine(results).items()}
        self.estimates: dict[Key, Estimate] = {}
        self.ways: dict[str, list[tuple[str, str, str]]] = {}
        self.firsts = {
            (fingerprint, metric): group.best(metric)
            for fingerprint, group in self.groups.items()
            for metric in METRICS_COMPARED
        }
        for fingerprint, group in self.groups.items():
            self._estimate(fingerprint, group)
        self.claims: dict[Key, float | None] = {
            ("best", metric, n): p
            for (_, metric), (_, others) in self.firsts.items()
            if metric not in MEMORY
            for n, p in others.items()
        }
        self.claims |= {key: estimate.p() for key, estimate in self.estimates.items()}
        self.held = holm(self.claims)

    def _estimate(self, fingerprint: str, group: Group) -> None:
        """Every ratio that one machine's part of the page shows."""
        found: dict[Key, Estimate] = {
            ("cold", name): e for name, e in cold_over_warm(group.results).items()
        }
        for number, state in enumerate(group.states[1:], 1):
            found |= {
                ("state", fingerprint, str(number), name, metric): state.ratios[metric][name]
                for name in state.trials
                for metric in TRIED
            }
        if group.baseline in group.results:
            for metric in (*LOADS, *TRIED):
                ratios = group.ratios(metric)
                others = [name for name in ratios if name != group.baseline]
                found |= {("ratio", name, metric): ratios[name] for name in others}
            decode = group.ratios(DECODE)
            for name in group.results:
                known = steps(name, group.baseline, group.results)
                self.ways[name] = [way for way in known if {*way[1:]} <= decode.keys()]
                for _, start, end in self.ways[name]:
                    found["factor", start, end] = quotient(decode[end], decode[start])
        self.estimates |= found

    def ratio(self, *key: str) -> Ratio:
        """An estimate as the page shows it."""
        found = self.estimates[key]
        tie = found.ci95 is not None and key not in self.held
        return Ratio(value=found.value, ci95=found.ci95, tie=tie)

    def ratios(self, *place: str) -> dict[str, dict[str, Ratio]]:
        """The ratios of one place of the page, by variant and metric."""
        found: dict[str, dict[str, Ratio]] = {}
        for key in self.estimates:
            if key[:-2] == place:
                found.setdefault(key[-2], {})[key[-1]] = self.ratio(*key)
        return found

    def best(self, metric: str) -> list[str]:
        """On each machine the best, and who ties with it."""
        found = []
        for fingerprint in self.groups:
            first, others = self.firsts[fingerprint, metric]
            if metric in MEMORY:
                claimed = {n for n, p in others.items() if not p}
            else:
                claimed = {n for n in others if ("best", metric, n) in self.held}
            found += ties(first, others, claimed)
        return found

    def factors(self) -> dict[str, list[Factor]]:
        """The steps from the baseline to each other variant."""
        return {
            name: [
                Factor(change=change, start=start, end=end, decode=self.ratio("factor", start, end))
                for change, start, end in way
            ]
            for name, way in self.ways.items()
        }

    def states(self) -> dict[str, list[StateFigures]]:
        """By machine, its states: the first one's ratios are those of the table."""
        return {
            fingerprint: [
                state_figures(
                    state,
                    group,
                    self.ratios("state", fingerprint, str(i)) if i else self.ratios("ratio"),
                )
                for i, state in enumerate(group.states)
            ]
            for fingerprint, group in self.groups.items()
        }


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
    page = Page(results, baseline)
    groups = list(page.groups.values())
    ratios = page.ratios("ratio")
    for name, metric, of_memory in memory_ratios(groups, baseline):
        ratios.setdefault(name, {})[metric] = of_memory
    factors = page.factors()
    others = [name for name in results if name != baseline and baseline in results]
    return Comparison(
        baseline=baseline,
        command=command,
        results={
            name: with_speeds_of_trials(result, page.groups[result.machine["fingerprint"]])
            for name, result in results.items()
        },
        ratios={name: ratios.get(name, {}) for name in results},
        best={metric: page.best(metric) for metric in METRICS_COMPARED},
        factors={name: factors.get(name, []) for name in others},
        cold_loads={key[1]: page.ratio(*key) for key in page.estimates if key[0] == "cold"},
        states=page.states(),
        claims=sum(p is not None for p in page.claims.values()),
        cutoff=max((page.claims[key] or 0.0 for key in page.held), default=0.0),
        peers=peers or {},
        precision=precision(groups, baseline, goal) if goal and baseline in results else None,
        failed=failed or {},
    )


def cold_over_warm(results: dict[str, Result]) -> dict[str, Estimate]:
    """How much longer a cold load takes than a warm one, from rounds that have both."""
    samples = {}
    for name, result in results.items():
        pairs = zip(*(result.metrics[metric].samples for metric in LOADS), strict=False)
        both = [median(cold) / median(warm) for cold, warm in pairs if cold and warm]
        if both and not result.output.flaw:
            samples[name] = both
    return statistics.together(samples)


def memory_ratios(groups: Iterable[Group], baseline: str) -> Iterator[tuple[str, str, Ratio]]:
    """Memory over the baseline's: no interval, and a tie within ``RESOLUTION``."""
    for group in groups:
        for name in group.results if baseline in group.results else ():
            for metric in MEMORY:
                ours, theirs = (value_of(group.results[n], metric) for n in (name, baseline))
                if name != baseline and ours and theirs:
                    tie = max(ours, theirs) <= (1 + RESOLUTION) * min(ours, theirs)
                    yield name, metric, Ratio(value=ours / theirs, ci95=None, tie=tie)


def state_figures(
    state: InState, group: Group, ratios: dict[str, dict[str, Ratio]]
) -> StateFigures:
    """A state as the comparison keeps it."""
    names = [n for n in group.results if n in state.trials or n == group.baseline]
    return StateFigures(
        compute_flops=state.state.compute_flops,
        memory_bytes_per_second=state.state.memory_bytes_per_second,
        share=state.state.share,
        trials={n: len(ts) for n, ts in state.trials.items()},
        metrics={
            n: {m: found for m in TRIED if (found := measured_in(state, m, n))} for n in names
        },
        ratios={n: {m: r for m, r in ratios.get(n, {}).items() if m in TRIED} for n in names},
    )
