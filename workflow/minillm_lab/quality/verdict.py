"""A verdict a person can read: how much a variant lost, never from one noisy figure.

The thresholds, and where they come from: docs/quality.md.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minillm_lab.records import QualityMetric

LEVELS = ("indistinguishable", "minor loss", "noticeable loss", "severe loss")
THRESHOLDS = {  # the first three levels end here; beyond the last is severe
    "kld_mean": (0.006, 0.04, 0.2),
    "same_top": (0.96, 0.91, 0.80),
    "answer_flips": (0.03, 0.08, 0.2),
}


def level(name: str, metric: "QualityMetric") -> int:
    """The level that a figure's interval supports: the mildest that it does not exclude."""
    if metric.value is None:
        return 0
    low, high = metric.ci95 or (metric.value, metric.value)
    bounds = THRESHOLDS[name]
    if name == "same_top":
        return sum(high < bound for bound in bounds)
    return sum(low > bound for bound in bounds)


def verdict(quality: "dict[str, QualityMetric] | None") -> str | None:
    """The worst level that two of the figures support; None where fewer were measured."""
    levels = sorted(level(n, quality[n]) for n in THRESHOLDS if n in quality) if quality else []
    return LEVELS[levels[-2]] if len(levels) > 1 else None
