"""Estimates from trials and rounds, with their intervals.

A trial or a round gives one positive value: the median of its slices or repetitions, which share
a moment and are not independent. The estimate from several is their Hodges-Lehmann median (the
median of all pairwise means; Hodges and Lehmann 1963) on the logarithm, which one outlying trial
hardly moves. Its standard error is the spread over √n, times ``ALLOWANCE``, since trials that
follow each other are not independent either. Variants on one machine share their spread, which a
few samples of one variant hardly show; if a variant's own spread is larger, its own counts. The
interval is Student's.

Where samples may follow something that was measured beside them, the samples of all variants give
one slope, and estimates are those at its mean (analysis of covariance; Fisher 1932). The slope is
the weighted median over pairs of one variant's samples (Sen 1968), which an outlying trial hardly
turns. It takes enough samples, since one more figure is taken from them then.

Every interval is a 95 % interval for this machine, in this state, during this run. Coverage by
simulation: ``tests/test_estimates.py``, docs/measurement.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, inf, log, sqrt
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr as student
from scipy.special import stdtrit as student_quantile  # scipy.stats takes 0.5 s to import

K = TypeVar("K")
Rounds = Sequence[Sequence[float]]  # samples[round][repetition]
ALLOWANCE = 1.6  # times the plain standard error
LEVEL = 0.05  # of all claims on a page together
ENOUGH = 8  # samples more than variants, from which a slope is taken
STEADY = 0.03  # deviation of what samples may follow that shows no slope


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, which is None if too few samples give none."""

    value: float
    ci95: tuple[float, float] | None
    n: int
    error: float | None = None  # standard error of the logarithm
    freedom: float = inf

    def p(self) -> float | None:
        """The two-sided p-value that the truth is 1; None without an interval."""
        if self.error is None or self.value <= 0:
            return None
        if not self.error:
            return float(self.value == 1)
        return float(2 * student(self.freedom, -abs(log(self.value)) / self.error))

    def least(self, p: float) -> float:
        """The smallest ratio above 1 that would have a p-value of ``p``; inf without an error."""
        if self.error is None:
            return inf
        return exp(float(student_quantile(self.freedom, 1 - p / 2)) * self.error)


def of_logarithm(value: float, n: int, error: float | None, freedom: float) -> Estimate:
    """An estimate by its logarithm's standard error; without one it has no interval."""
    if error is None:
        return Estimate(value, None, n)
    reach = exp(float(student_quantile(freedom, 0.975)) * error)
    return Estimate(value, (value / reach, value * reach), n, error, freedom)


def centre(values: Sequence[float] | NDArray[np.float64]) -> float:
    """The Hodges-Lehmann median: the median of the means of all pairs, also of each with itself."""
    x = np.asarray(values)
    i, j = np.triu_indices(len(x))
    return float(np.median((x[i] + x[j]) / 2))


def slope_of(of_variants: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> float:
    """The slope of y on x that variants have in common: the weighted median over pairs of each."""
    pairs = [np.triu_indices(len(x), 1) for x, _ in of_variants]
    dx = np.concatenate([x[i] - x[j] for (x, _), (i, j) in zip(of_variants, pairs, strict=True)])
    dy = np.concatenate([y[i] - y[j] for (_, y), (i, j) in zip(of_variants, pairs, strict=True)])
    slopes, weights = dy[dx != 0] / dx[dx != 0], np.abs(dx[dx != 0])
    order = np.argsort(slopes)
    cumulated = np.cumsum(weights[order])
    return float(slopes[order][np.searchsorted(cumulated, cumulated[-1] / 2)])


def together(
    samples: Mapping[str, Sequence[float]], beside: Mapping[str, Sequence[float]] | None = None
) -> dict[str, Estimate]:
    """An estimate from each variant's positive samples, with the spread of all together.

    ``beside`` holds what each sample's logarithm may follow, less its mean.
    """
    logs = {name: np.log(values) for name, values in samples.items() if len(values)}
    freedom = sum(len(x) - 1 for x in logs.values())
    aside = dict.fromkeys(logs, 0.0)  # how uncertain the slope leaves an estimate, as 1 / n
    if beside and freedom >= ENOUGH:
        offsets = {name: np.asarray(beside[name]) for name in logs}
        squared = sum(len(x) * float(np.var(x)) for x in offsets.values())
        if squared > freedom * STEADY**2:
            slope = slope_of([(offsets[name], y) for name, y in logs.items()])
            logs = {name: y - slope * offsets[name] for name, y in logs.items()}
            aside = {name: float(x.mean()) ** 2 / squared for name, x in offsets.items()}
            freedom -= 1
    centres = {name: centre(x) for name, x in logs.items()}
    squares = {name: float(((x - centres[name]) ** 2).sum()) for name, x in logs.items()}
    found = {}
    for name, x in logs.items():
        error = None
        if freedom:
            own = squares[name] / (len(x) - 1) if len(x) > 1 else 0.0
            spread = sqrt(max(own, sum(squares.values()) / freedom))
            error = ALLOWANCE * spread * sqrt(1 / len(x) + aside[name])
        found[name] = of_logarithm(exp(centres[name]), len(x), error, freedom)
    return found


def product(a: Estimate, b: Estimate, power: int = 1) -> Estimate:
    """a × b of independent estimates (Welch, Satterthwaite); a / b if ``power`` is −1."""
    value, n = a.value * b.value**power, min(a.n, b.n)
    if a.error is None or b.error is None:
        return Estimate(value, None, n)
    squares = [a.error**2, b.error**2]
    if not (total := sum(squares)):
        return of_logarithm(value, n, 0.0, min(a.freedom, b.freedom))
    weights = [s**2 / f for s, f in zip(squares, (a.freedom, b.freedom), strict=True)]
    freedom = total**2 / sum(weights) if sum(weights) else inf
    return of_logarithm(value, n, sqrt(total), freedom)


def quotient(a: Estimate, b: Estimate) -> Estimate:
    """a / b of independent estimates."""
    return product(a, b, -1)


def holm(claims: Mapping[K, float | None]) -> set[K]:
    """The claims that hold together at ``LEVEL`` by their p-values (Holm 1979; None: untested)."""
    tested = [(p, key) for key, p in claims.items() if p is not None]
    held: set[K] = set()
    for i, (p, key) in enumerate(sorted(tested, key=lambda claim: claim[0])):
        if p > LEVEL / (len(tested) - i):
            break
        held.add(key)
    return held


def needed(estimate: Estimate, goal: float) -> int | None:
    """The number of samples in all that would bring the interval within ± ``goal`` (0.02 for 2 %).

    With the spread of the samples, half-widths shrink as t / √n. The number is at most 1000, and
    None if there is one sample, which shows no spread.
    """
    if estimate.error is None or estimate.ci95 is None:
        return None
    if estimate.ci95[1] / estimate.value - 1 <= goal:
        return estimate.n
    spread = estimate.error * sqrt(estimate.n)
    extra = estimate.freedom - (estimate.n - 1)
    reaches = (student_quantile(n - 1 + extra, 0.975) * spread / sqrt(n) for n in range(2, 1000))
    enough = (n for n, reach in enumerate(reaches, 2) if exp(reach) - 1 <= goal)
    return max(estimate.n + 1, next(enough, 1000))


def of_rounds(rounds: Rounds) -> Estimate:
    """The estimate from one variant's rounds, with the median of each round's repetitions.

    A round without samples does not count.
    """
    values = [float(np.median(repetitions)) for repetitions in rounds if len(repetitions)]
    if min(values) <= 0:  # memory may be 0, which has no logarithm
        return Estimate(float(np.median(values)), None, len(values))
    return together({"": values})[""]
