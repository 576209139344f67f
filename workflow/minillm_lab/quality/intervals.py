"""Intervals of 95 % for figures of quality: over tokens in chunks, and over questions.

The tokens of one chunk share their context and topic and are not independent, so every interval
over tokens takes its error from the differences between chunks, with Student's t of chunks − 1
degrees of freedom. Coverage by simulation: tests/quality/test_intervals.py, docs/quality.md.
"""

from math import exp, inf, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, gammaincinv, ndtri  # scipy.stats takes 0.5 s to import
from scipy.special import stdtrit as student_quantile

from minillm_lab.records import QualityMetric

FEWEST = 3  # chunks that an interval needs; with two, it would reach to 5 times the value
LARGEST = 600.0  # logarithm of the largest value that is written as a number
Doubles = NDArray[np.float64]
Interval = tuple[float, float]


def mean(unit: str, tokens: Doubles) -> QualityMetric:
    """The mean of per-token values of either sign, shape (chunks, tokens)."""
    value, half = float(tokens.mean()), half_width(tokens.mean(axis=1))
    interval = None if half is None else (value - half, value + half)
    return QualityMetric(value=value, unit=unit, ci95=interval, n=tokens.size)


def positive_mean(unit: str, tokens: Doubles, power: float = 1.0) -> QualityMetric:
    """The mean of non-negative values, to a power; the interval is taken on its logarithm."""
    return ratio(unit, tokens, np.ones_like(tokens), power)


def ratio(unit: str, above: Doubles, below: Doubles, power: float = 1.0) -> QualityMetric:
    """Σ above / Σ below of non-negative values, to a power.

    The error of the ratio's logarithm is that of the chunks' residuals (Cochran 1977, section 6.3).
    """
    share = float(above.sum() / below.sum())
    value, interval = share**power, None
    if share > 0:
        residuals = (above - share * below).mean(axis=1) / above.mean()
        if (half := half_width(residuals)) is not None:
            factor = exp(min(power * half, LARGEST))
            interval = (value / factor, value * factor)
    elif len(above) >= FEWEST:
        interval = (0.0, 0.0)
    return QualityMetric(value=value, unit=unit, ci95=interval, n=above.size)


def exp_mean(unit: str, tokens: Doubles) -> QualityMetric:
    """exp of the mean: a perplexity, or a ratio of perplexities if ``tokens`` are differences.

    The value is null if it is too large for a number, as a broken model's may be.
    """
    logarithm = float(tokens.mean())
    if logarithm > LARGEST:
        return QualityMetric(value=None, unit=unit, ci95=None, n=tokens.size)
    interval = None
    if (half := half_width(tokens.mean(axis=1))) is not None:
        interval = (exp(logarithm - half), exp(min(logarithm + half, LARGEST)))
    return QualityMetric(value=exp(logarithm), unit=unit, ci95=interval, n=tokens.size)


def share(unit: str, tokens: Doubles) -> QualityMetric:
    """The share of tokens that are true, with Wilson's interval at their effective number."""
    return QualityMetric(
        value=float(tokens.mean()),
        unit=unit,
        ci95=_of_share(tokens, float(tokens.mean())),
        n=tokens.size,
    )


def count(unit: str, tokens: Doubles) -> QualityMetric:
    """The mean number of true tokens per prompt, whose tokens may depend on each other wholly.

    As a share of the tokens it is at most as uncertain as a share of the prompts, whose interval is
    Wilson's. Student's interval does not cover if all tokens of most prompts are true.
    """
    prompts, length = tokens.shape
    value, interval = float(tokens.mean()), None
    if prompts >= FEWEST:
        low, high = wilson(value, prompts, float(student_quantile(prompts - 1, 0.975)))
        interval = (low * length, high * length)
    return QualityMetric(value=value * length, unit=unit, ci95=interval, n=prompts)


def quantile(unit: str, tokens: Doubles, level: float) -> QualityMetric:
    """A quantile of per-token values, with Woodruff's interval (1952).

    The share of tokens below the quantile has an interval; the quantiles at its two ends are the
    ends of the quantile's interval.
    """
    value = float(np.quantile(tokens, level))
    levels = _of_share(tokens <= value, level)
    interval = None
    if levels is not None:
        low, high = np.quantile(tokens, levels)
        interval = (min(float(low), value), max(float(high), value))
    return QualityMetric(value=value, unit=unit, ci95=interval, n=tokens.size)


def alone(unit: str, value: float, tokens: Doubles) -> QualityMetric:
    """A figure that no interval covers: a maximum, a quantile of very few tokens."""
    return QualityMetric(value=float(value), unit=unit, ci95=None, n=tokens.size)


def proportion(count: int, n: int) -> QualityMetric:
    """A share of questions with its modified Wilson interval (Brown, Cai and DasGupta 2001).

    Wilson's own interval covers 84 % if one or two are expected; there its lower end is replaced by
    that of the Poisson distribution, which covers.
    """
    low, high = wilson(count / n, n, float(ndtri(0.975)))
    few = 3 if n > 50 else 2
    if 0 < count <= few:
        low = float(gammaincinv(count, 0.05)) / n
    if 0 < n - count <= few:
        high = 1 - float(gammaincinv(n - count, 0.05)) / n
    return QualityMetric(value=count / n, unit="1", ci95=(low, high), n=n)


def mcnemar(lost: int, won: int) -> float:
    """The exact two-sided p-value that choices turn wrong as often as right (McNemar 1947)."""
    return min(1.0, 2 * float(bdtr(min(lost, won), lost + won, 0.5))) if lost + won else 1.0


def wilson(value: float, n: float, quantile: float) -> Interval:
    """Wilson's score interval (1927) of a share; the number n need not be whole."""
    square = quantile**2
    centre = (value + square / (2 * n)) / (1 + square / n)
    reach = quantile * sqrt(value * (1 - value) / n + square / (4 * n**2)) / (1 + square / n)
    return max(0.0, min(value, centre - reach)), min(1.0, max(value, centre + reach))


def _of_share(tokens: NDArray[np.generic], value: float) -> Interval | None:
    """Wilson's interval for a share of tokens, at the number that the spread of chunks gives."""
    chunks = len(tokens)
    if chunks < FEWEST:
        return None
    by_chunk = tokens.mean(axis=1)
    spread, here = float(by_chunk.var(ddof=1)) / chunks, float(by_chunk.mean())
    effective = here * (1 - here) / spread if spread else inf
    quantile = float(student_quantile(chunks - 1, 0.975))
    return wilson(value, min(effective, tokens.size), quantile)


def half_width(by_chunk: Doubles) -> float | None:
    """Half the width of Student's interval for the mean of chunks; None if they are too few."""
    n = len(by_chunk)
    if n < FEWEST:
        return None
    return float(student_quantile(n - 1, 0.975) * by_chunk.std(ddof=1) / sqrt(n))
