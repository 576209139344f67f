"""Speeds and ratios from trials, one set of figures for each state of the machine.

A ratio is estimated from the trials of its variant that began and ended in the state. A speed is
the baseline's, from all trials in the state, times the variant's ratio: so a speed and the ratio
beside it are one figure and cannot contradict each other.
"""

from dataclasses import dataclass

from minillm_lab import statistics
from minillm_lab.result import Reading, Result, TrialSample
from minillm_lab.states import State, find_states
from minillm_lab.statistics import Estimate, product

METRICS = (  # that trials measure
    "first_token_seconds",
    "prefill_tokens_per_second",
    "decode_tokens_per_second",
    "generate_seconds",
    "generate_tokens_per_second",
)
Estimates = dict[str, dict[str, Estimate]]  # by metric, by variant


@dataclass(frozen=True)
class InState:
    """The figures of one state, from trials; the baseline's ratio is 1, without error."""

    state: State
    trials: dict[str, list[TrialSample]]  # by variant
    ratios: Estimates
    speeds: Estimates


def by_state(results: dict[str, Result], baseline: str) -> list[InState]:
    """The figures of each state of one machine in which there were trials, the most frequent first.

    The order is that of the readings of rounds and trials alike.
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
    return [
        figures(state, of_state, baseline)
        for state, of_state in zip(states, found, strict=True)
        if of_state
    ]


def usable(result: Result) -> list[TrialSample]:
    """The trials of a result that nothing disturbed, taken on the machine of its rounds."""
    here = result.machine["fingerprint"]
    return [t for t in result.trials if not t.disturbed and t.fingerprint == here]


def figures(state: State, trials: dict[str, list[TrialSample]], baseline: str) -> InState:
    """Every metric's ratios and speeds in one state."""
    ratios: Estimates = {}
    speeds: Estimates = {}
    for metric in METRICS:
        found = statistics.together({n: [t.ratios[metric] for t in ts] for n, ts in trials.items()})
        every = [t.baseline_speeds[metric] for ts in trials.values() for t in ts]
        base = statistics.together({baseline: every})[baseline]
        ratios[metric] = {baseline: Estimate(1.0, None, len(every), 0.0), **found}
        speeds[metric] = {baseline: base} | {n: product(base, r) for n, r in found.items()}
    return InState(state, trials, ratios, speeds)
