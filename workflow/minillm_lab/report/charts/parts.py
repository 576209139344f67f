"""What charts have in common: rows of data, axes, markers with their intervals."""

from typing import Any

import altair as alt

from minillm_lab.comparison.shapes import Comparison
from minillm_lab.records import QualityMetric
from minillm_lab.result import Metric

WIDE, NARROW = 560, 225  # the plotting area: a page, a telephone
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right"]
ROW = 26  # height of a variant's row
Row = dict[str, Any]


def measured(name: str, metric: Metric | QualityMetric | None, factor: float = 1.0) -> Row | None:
    """A variant's figure as a row: value, interval (the value itself where there is none)."""
    if metric is None or metric.value is None:
        return None
    low, high = metric.ci95 or (metric.value, metric.value)
    return {
        "variant": name,
        "value": factor * metric.value,
        "low": factor * low,
        "high": factor * high,
    }


def rows_of(
    comparison: Comparison, names: list[str], metric: str, factor: float = 1.0, **more: object
) -> list[Row]:
    """A row for each variant that has the metric, of speed or of quality."""
    found = []
    for name in names:
        result = comparison.results[name]
        figure = result.metrics.get(metric) or (result.quality or {}).get(metric)
        if row := measured(name, figure, factor):
            found.append(row | more)
    return found


def variant_axis(names: list[str]) -> alt.Y:
    return alt.Y("variant:N", sort=names, title=None)


def shapes(what: str, kinds: list[str], **more: Any) -> alt.Shape:
    """A shape for each kind, beside its colour; there are seven, so that pairs repeat late."""
    cycled = [SHAPES[i % len(SHAPES)] for i in range(len(kinds))]
    return alt.Shape(f"{what}:N", title=None, scale=alt.Scale(domain=kinds, range=cycled), **more)


def of_field(channel: alt.X | alt.Y, field: str) -> Any:
    """The same axis for another field."""
    other = channel.copy()
    other["shorthand"] = f"{field}:Q"
    return other


def tooltip(what: str, unit: str) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("variant:N", title="Variant"),
        alt.Tooltip(f"{what}:N", title="Figure"),
        alt.Tooltip("value:Q", title=unit, format=".4g"),
        alt.Tooltip("low:Q", title="95 % from", format=".4g"),
        alt.Tooltip("high:Q", title="to", format=".4g"),
    ]


def dots(
    rows: list[Row], names: list[str], what: str, kinds: list[str], x: alt.X, width: int, unit: str
) -> alt.LayerChart:
    """A row per variant, a marker with its interval for each kind of figure."""
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=variant_axis(names),
        color=alt.Color(f"{what}:N", title=None, scale=alt.Scale(domain=kinds)),
        yOffset=alt.YOffset(f"{what}:N", sort=kinds),
        tooltip=tooltip(what, unit),
    )
    intervals = base.mark_rule(strokeWidth=2).encode(x=of_field(x, "low"), x2="high")
    points = base.mark_point(filled=True, size=70, opacity=1).encode(
        x=of_field(x, "value"),
        shape=shapes(what, kinds),
    )
    step = max(ROW, 12 * len(kinds))
    return alt.layer(intervals, points).properties(width=width, height=step * len(names))
