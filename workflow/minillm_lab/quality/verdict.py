"""The verdict: how much quality a variant lost, in words, as far as the intervals prove it.

Two of three figures decide, so that no single one does. docs/quality.md has the thresholds and
their sources.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minillm_lab.records import QualityMetric

LEVELS = ("negligible", "minor", "noticeable", "severe")
THRESHOLDS = {  # the ends of the first three levels; beyond the last, loss is severe
    "kld_mean": (0.006, 0.04, 0.2),
    "same_top": (0.96, 0.91, 0.80),
    "answer_flips": (0.03, 0.08, 0.2),
}


@dataclass(frozen=True)
class Loss:
    """The levels that the intervals leave open, as indices of LEVELS, and the values' own level."""

    best: int  # the intervals exclude less loss than this
    worst: int  # the intervals exclude more loss than this
    by_value: int

    def __str__(self) -> str:
        if self.best == self.worst:
            return f"{LEVELS[self.worst]} loss"
        between = "or" if self.worst == self.best + 1 else "to"
        return f"{LEVELS[self.best]} {between} {LEVELS[self.worst]} loss"


def level(name: str, value: float) -> int:
    """The level of one value of a figure."""
    sign = -1 if name == "same_top" else 1  # the other figures are worse if larger
    return sum(sign * value > sign * bound for bound in THRESHOLDS[name])


def loss(quality: "dict[str, QualityMetric] | None") -> Loss | None:
    """The loss that two of the figures support; None if fewer than two were measured.

    A figure without an interval, or one that was not measured, leaves every level open.
    """
    found = []
    for name in THRESHOLDS:
        metric = (quality or {}).get(name)
        if metric is None or metric.value is None:
            continue
        at = level(name, metric.value)
        ends = sorted(level(name, end) for end in metric.ci95) if metric.ci95 else (0, 3)
        found.append((ends[0], ends[-1], at))
    if len(found) < 2:
        return None
    found += [(0, 3, 3)] * (len(THRESHOLDS) - len(found))
    best, worst, by_value = (sorted(levels)[-2] for levels in zip(*found, strict=True))
    return Loss(best, worst, by_value)


def verdict(quality: "dict[str, QualityMetric] | None") -> str | None:
    """The loss in words (``minor loss``, ``negligible or minor loss``); None if not measured."""
    found = loss(quality)
    return str(found) if found else None
