"""Intervals for quality figures: chunks resampled, proportions by Wilson, pairs by McNemar."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from minillm_lab.records import QualityMetric

RESAMPLES = 1000
Doubles = NDArray[np.float64]


def over_chunks(
    unit: str, figure: Callable[[Doubles], np.floating[Any]], tokens: Doubles
) -> QualityMetric:
    """A figure of per-token values, shape (chunks, tokens), with a percentile bootstrap.

    Whole chunks are resampled: the tokens within one share their context and their topic, so
    they are not independent (block bootstrap, Künsch 1989).
    """
    chunks, scored = tokens.shape
    value = float(figure(tokens))
    picks = np.random.default_rng(20261123).integers(0, chunks, (RESAMPLES, chunks))
    drawn = [figure(tokens[pick]) for pick in picks]
    low, high = (float(q) for q in np.quantile(drawn, [0.025, 0.975]))
    interval = (low, high) if chunks > 1 else None
    return QualityMetric(value=value, unit=unit, ci95=interval, n=chunks * scored)


def proportion(count: int, n: int) -> QualityMetric:
    """A share of questions with its Wilson score interval (Wilson 1927)."""
    interval = binomtest(count, n).proportion_ci(method="wilson")
    low, high = float(interval.low), float(interval.high)
    return QualityMetric(value=count / n, unit="1", ci95=(low, high), n=n)


def mcnemar(lost: int, won: int) -> float:
    """The exact two-sided p-value that answers turn wrong as often as right (McNemar 1947)."""
    return float(binomtest(lost, lost + won).pvalue) if lost + won else 1.0
