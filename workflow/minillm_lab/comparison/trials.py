"""Speeds and ratios from trials, one set of figures for each state of the machine.

A ratio is estimated from those blocks of the variant's trials that began and ended in the state. A
speed is the baseline's speed, from all trials in the state, times the variant's ratio, so a speed
and the ratio beside it cannot contradict each other.

Variants in one runtime share their spread where they have enough trials, and all do elsewhere.
Within a state the machine still goes up and down, and ratios follow it, since a file that reads
more memory gains where memory is faster. So ratios are those at the mean balance of compute to
memory, over all trials in the state, where there are enough trials to tell.
"""

from dataclasses import dataclass
from math import exp, log
from statistics import fmean

from minillm_lab import estimates
from minillm_lab.comparison.states import State, find_states
from minillm_lab.estimates import Estimate, product
from minillm_lab.records import Reading
from minillm_lab.result import Result, TrialSample

METRICS = {  # the metrics that trials measure, and their units
    "first_token_seconds": "s",
    "prefill_tokens_per_second": "t/s",
    "decode_tokens_per_second": "t/s",
    "generate_seconds": "s",
    "generate_tokens_per_second": "t/s",
}
FEW = 4  # trials more than variants, below which a runtime's variants have no spread of their own
Estimates = dict[str, dict[str, Estimate]]  # by metric, by variant


@dataclass(frozen=True)
class Trial:
    """One trial's figures in a state: by metric, the centre of its blocks in that state."""

    speeds: dict[str, float]
    baseline_speeds: dict[str, float]
    ratios: dict[str, float]
    balance: float  # logarithm of the compute yardstick over the memory yardstick


@dataclass(frozen=True)
class InState:
    """The figures of trials in one state; the baseline's ratio is 1, without error."""

    state: State
    trials: dict[str, list[Trial]]  # by variant
    ratios: Estimates
    speeds: Estimates


def by_state(results: dict[str, Result], baseline: str) -> list[InState]:
    """The figures of each state of one machine in which there were trials.

    The most frequent state comes first, by the readings of rounds and trials together.
    """
    trials = {name: usable(result) for name, result in results.items()}
    pairs: list[tuple[Reading, Reading]] = [
        *(pair for result in results.values() for pair in result.round_readings),
        *((t.before, t.after) for of_variant in trials.values() for t in of_variant),
    ]
    states, labels = find_states([reading for pair in pairs for reading in pair])
    ends = list(zip(labels[::2], labels[1::2], strict=True))
    of_trials = iter(ends[len(ends) - sum(map(len, trials.values())) :])
    found: list[dict[str, list[TrialSample]]] = [{} for _ in states]
    for name, of_variant in trials.items():
        for trial in of_variant:
            before, after = next(of_trials)
            if before is not None and before == after:
                found[before].setdefault(name, []).append(trial)
    groups = alike(results)
    return [
        figures(state, {n: combined(bs) for n, bs in of_state.items()}, baseline, groups)
        for state, of_state in zip(states, found, strict=True)
        if of_state
    ]


def alike(results: dict[str, Result]) -> list[list[str]]:
    """The variants whose ratios to the baseline scatter alike, since they compute alike."""
    found: dict[tuple[str, str, int], list[str]] = {}
    for name, result in results.items():
        how = result.runtime
        found.setdefault((how["name"], how["backend"], how["threads"]), []).append(name)
    return [*found.values()]


def usable(result: Result) -> list[TrialSample]:
    """The blocks of undisturbed trials that ran on the same machine as the result's rounds."""
    here = result.machine["fingerprint"]
    return [t for t in result.trials if not t.disturbed and t.fingerprint == here]


def combined(blocks: list[TrialSample]) -> list[Trial]:
    """The blocks of a variant in one state, combined for each trial."""
    by_trial: dict[int, list[TrialSample]] = {}
    for block in blocks:
        by_trial.setdefault(block.trial, []).append(block)

    def centres(what: str, of_trial: list[TrialSample]) -> dict[str, float]:
        found = [getattr(block, what) for block in of_trial]
        return {m: exp(estimates.centre([log(f[m]) for f in found])) for m in METRICS}

    def balance(of_trial: list[TrialSample]) -> float:
        readings = [reading for block in of_trial for reading in (block.before, block.after)]
        return fmean(log(r.compute_flops / r.memory_bytes_per_second) for r in readings)

    return [
        Trial(
            centres("speeds", of_trial),
            centres("baseline_speeds", of_trial),
            centres("ratios", of_trial),
            balance(of_trial),
        )
        for of_trial in by_trial.values()
    ]


def figures(
    state: State, trials: dict[str, list[Trial]], baseline: str, groups: list[list[str]]
) -> InState:
    """Every metric's ratios and speeds in one state; ``groups`` are variants that scatter alike."""
    ratios: Estimates = {}
    speeds: Estimates = {}
    mean = fmean(t.balance for ts in trials.values() for t in ts)
    apart = {n: [t.balance - mean for t in ts] for n, ts in trials.items()}
    tried = [[n for n in names if n in trials] for names in groups]
    enough = [names for names in tried if sum(len(trials[n]) - 1 for n in names) >= FEW]
    for metric in METRICS:
        samples = {n: [t.ratios[metric] for t in ts] for n, ts in trials.items()}
        found = estimates.together(samples)
        for names in enough:
            found |= estimates.together({n: samples[n] for n in names}, apart)
        every = [t.baseline_speeds[metric] for ts in trials.values() for t in ts]
        base = estimates.together({baseline: every})[baseline]
        ratios[metric] = {baseline: Estimate(1.0, None, len(every), 0.0), **found}
        speeds[metric] = {baseline: base} | {n: product(base, r) for n, r in found.items()}
    return InState(state, trials, ratios, speeds)
