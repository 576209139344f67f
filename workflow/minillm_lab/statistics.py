"""Medians, and how far they can be trusted: intervals that respect rounds.

Samples come in rounds (one fresh process each) of repetitions. Repetitions within a round share
their process, page layout and moment, so they are not independent: the bootstrap resamples
rounds, then repetitions within each.

With three rounds the percentile bootstrap is far too narrow (there are ten distinct resamples of
the rounds). The interval here is therefore the median ± t × the bootstrap's standard error, with
Student's t for (rounds − 1) degrees of freedom and the small-sample factor √(n / (n − 1)), taken
on the logarithm, since times and ratios are positive (Hesterberg 2015, "What teachers should
know about the bootstrap", sections 4 and 5, on narrowness bias and t intervals).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit as student_quantile  # scipy.stats takes 0.5 s to import

Rounds = Sequence[Sequence[float]]  # samples[round][repetition]
RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; the interval is None where one round cannot give one."""

    value: float
    ci95: tuple[float, float] | None
    n: int

    def excludes(self, value: float) -> bool:
        """Whether the data support a difference from ``value``."""
        return self.ci95 is not None and not self.ci95[0] <= value <= self.ci95[1]


def median(rounds: Rounds) -> Estimate:
    """The median over rounds of each round's median, with its interval."""
    return _estimate([rounds], lambda medians: medians[0])


def paired_ratio(rounds: Rounds, baseline: Rounds) -> Estimate:
    """The median over rounds of (median of a round / median of the baseline's same round).

    Both must hold the same rounds in the same order; drift of the machine cancels within one.
    """
    if len(rounds) != len(baseline):
        raise ValueError(f"{len(rounds)} rounds cannot be paired with {len(baseline)}")
    return _estimate([rounds, baseline], lambda medians: medians[0] / medians[1])


def rounds_needed(estimate: Estimate, rounds: int, goal: float) -> int | None:
    """How many rounds in all would bring the interval within ± ``goal`` (0.02: two percent).

    From the spread that ``rounds`` rounds showed, half-widths shrink as t / √n. None where one
    round shows no spread; at most 1000.
    """
    if estimate.ci95 is None:
        return None
    reach = float(np.log(estimate.ci95[1] / estimate.value))
    spread = reach * np.sqrt(rounds) / student_quantile(rounds - 1, 0.975)
    reaches = (student_quantile(n - 1, 0.975) * spread / np.sqrt(n) for n in range(2, 1000))
    enough = (n for n, reached in enumerate(reaches, 2) if reached <= goal)
    return rounds if reach <= goal else max(rounds + 1, next(enough, 1000))


def _estimate(
    groups: list[Rounds], combine: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> Estimate:
    count = len(groups[0])
    n = sum(len(repetitions) for repetitions in groups[0])
    medians = np.array([[np.median(r) for r in group] for group in groups])
    value = float(np.median(combine(medians)))
    if count < 2 or value <= 0:
        return Estimate(value, None, n)
    random = np.random.default_rng(20261123)
    resampled = np.array(
        [
            [np.median(random.choice(np.asarray(r), (RESAMPLES, len(r))), axis=1) for r in group]
            for group in groups
        ]
    )  # (groups, rounds, resamples): each round's median with its repetitions resampled
    picks = random.integers(0, count, (RESAMPLES, count))
    drawn = combine(resampled[:, picks, np.arange(RESAMPLES)[:, None]])
    spread = np.std(np.log(np.median(drawn, axis=1)), ddof=1) * np.sqrt(count / (count - 1))
    reach = float(np.exp(student_quantile(count - 1, 0.975) * spread))
    return Estimate(value, (value / reach, value * reach), n)
