"""The results of one machine, and every ratio between them.

Ratios of times and speeds come from trials, those of loads from rounds of the same number. A ratio
of memory is one value over another, which counts as a difference beyond ``RESOLUTION``.
"""

from collections.abc import Iterable
from datetime import datetime
from functools import cache
from statistics import median

from minillm_lab import estimates
from minillm_lab.comparison.shapes import Comparison
from minillm_lab.comparison.trials import METRICS as TRIED
from minillm_lab.comparison.trials import InState, by_state
from minillm_lab.estimates import LEVEL, Estimate, quotient
from minillm_lab.result import Metric, Result

LOADS = ("load_cold_seconds", "load_warm_seconds")
MEMORY = (
    "memory_after_load_bytes",
    "memory_after_generation_bytes",
    "memory_model_bytes",
    "memory_peak_bytes",
    "accelerator_memory_peak_bytes",
)
RESOLUTION = 0.02  # of memory; an allocator may take that much more or less
HOUR = 3600.0  # seconds; two rounds farther apart form no ratio


def by_machine(results: dict[str, Result]) -> dict[str, dict[str, Result]]:
    """Results by the fingerprint of their machine; figures of two machines are never compared."""
    groups: dict[str, dict[str, Result]] = {}
    for name, result in results.items():
        groups.setdefault(result.machine["fingerprint"], {})[name] = result
    return groups


def same_hour(a: Result, b: Result) -> list[int]:
    """The rounds (from 0 on) of two results that were measured within an hour of each other."""
    times = zip(a.round_times, b.round_times, strict=False)
    apart = [datetime.fromisoformat(x) - datetime.fromisoformat(y) for x, y in times]
    return [i for i, t in enumerate(apart) if abs(t.total_seconds()) <= HOUR]


def of_rounds(result: Result, metric: str) -> Metric:
    """A metric of a result's rounds, even where its speeds are those of trials already."""
    own = f"{metric}_at_{result.protocol['prompt_tokens']}"
    return result.metrics.get(own) or result.metrics[metric]


def by_rounds(results: dict[str, Result], over: Result, metric: str) -> dict[str, Estimate]:
    """Ratios to the result ``over``, from rounds of the same number that both have the metric."""
    samples = {}
    for name, result in results.items():
        if metric not in result.metrics or metric not in over.metrics:
            continue
        ours, theirs = of_rounds(result, metric).samples, of_rounds(over, metric).samples
        within = [i for i in same_hour(result, over) if i < min(len(ours), len(theirs))]
        if both := [(ours[i], theirs[i]) for i in within if ours[i] and theirs[i]]:
            samples[name] = [median(a) / median(b) for a, b in both]
    return estimates.together(samples)


class Group:
    """The results of one machine, and every ratio between them as an estimate.

    ``cutoff`` is the largest p-value of a difference that is claimed.
    """

    def __init__(self, results: dict[str, Result], baseline: str, cutoff: float = LEVEL) -> None:
        self.results, self.baseline, self.cutoff = results, baseline, cutoff
        self.states = by_state(results, baseline)
        self.ratios = cache(self._ratios)

    @property
    def main(self) -> InState | None:
        """The most frequent state in which there were trials; None if there was no trial."""
        return self.states[0] if self.states else None

    def _ratios(self, metric: str) -> dict[str, Estimate]:
        """Ratios to the baseline, by variant; the baseline's own is 1, without error."""
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

        A variant whose answer means nothing is left out.
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
        """The best of some variants, and those tied with it; empty if nothing was tested."""
        first, others = self.best(metric, names)
        claimed = {n for n, p in others.items() if p is not None and self.claims(p)}
        return ties(first, others, claimed)

    def claims(self, p: float) -> bool:
        """Whether a difference of this p-value is claimed, whatever its last digits."""
        return p <= self.cutoff * (1 + 1e-9)


def group_of(comparison: Comparison, results: dict[str, Result]) -> Group:
    """Some results of one machine, with the comparison's cutoff for claims."""
    return Group(results, comparison.baseline, comparison.cutoff)


def ties(first: str | None, others: dict[str, float | None], claimed: set[str]) -> list[str]:
    """The best variant and those tied with it; one that was not tested is not tied."""
    if first is None or all(p is None for p in others.values()):
        return []
    return [first, *(n for n, p in others.items() if p is not None and n not in claimed)]


def value_of(result: Result, metric: str) -> float | None:
    """A metric's value; None if it was not measured."""
    measured = result.metrics.get(metric)
    return measured.value if measured else None


def cold_over_warm(results: dict[str, Result]) -> dict[str, Estimate]:
    """The ratio of cold to warm load time, by variant, from rounds that have both."""
    samples = {}
    for name, result in results.items():
        pairs = zip(*(result.metrics[metric].samples for metric in LOADS), strict=False)
        both = [median(cold) / median(warm) for cold, warm in pairs if cold and warm]
        if both and not result.output.flaw:
            samples[name] = both
    return estimates.together(samples)
