"""The charts as declarative specifications (Vega-Lite, through Altair): one function each.

A function takes the comparison, the variants to draw (of one machine) and the width of the plot in
pixels; it returns a chart, or None where there is nothing to draw. Colours of text and ground are
not here but in the themes of draw.py, so that one specification serves light and dark, the page
and the report.
"""

from collections.abc import Callable

import altair as alt

from minillm_lab.comparison.group import by_machine
from minillm_lab.comparison.shapes import Comparison
from minillm_lab.report import CHARTS
from minillm_lab.report.charts.curves import contexts, lengths
from minillm_lab.report.charts.parts import (
    NARROW,
    ROW,
    WIDE,
    Row,
    dots,
    of_field,
    rows_of,
    shapes,
    tooltip,
    variant_axis,
)
from minillm_lab.report.charts.recipes import recipes
from minillm_lab.report.charts.tradeoff import questions, tradeoff
from minillm_lab.wording import number


def load(comparison: Comparison, names: list[str], width: int) -> alt.LayerChart | None:
    """Seconds to load, from disk and from the page cache."""
    rows = [
        *rows_of(comparison, names, "load_cold_seconds", cache="cold: from disk"),
        *rows_of(comparison, names, "load_warm_seconds", cache="warm: read before"),
    ]
    if not rows:
        return None
    high = max(min(r["high"], 2 * r["value"]) for r in rows)
    x = alt.X(
        "value:Q",
        title="Load time ↓, s",
        scale=alt.Scale(domain=[0, 1.05 * high], clamp=True),
        axis=alt.Axis(tickCount=6),
    )
    kinds = list(dict.fromkeys(r["cache"] for r in rows))
    return dots(rows, names, "cache", kinds, x, width, "s")


def memory(comparison: Comparison, names: list[str], width: int) -> alt.LayerChart | None:
    """Memory after generation by part, and its peak."""
    parts: list[Row] = []
    for name in names:
        of_part = [
            *rows_of(comparison, [name], "memory_anonymous_bytes", 1e-6, part="anonymous"),
            *rows_of(comparison, [name], "memory_file_backed_bytes", 1e-6, part="file-backed"),
        ]
        whole = rows_of(
            comparison, [name], "memory_after_generation_bytes", 1e-6, part="parts not known"
        )
        parts += of_part or whole
    peaks = rows_of(comparison, names, "memory_peak_bytes", 1e-6, part="peak")
    if not parts:
        return None
    kinds = list(dict.fromkeys(r["part"] for r in parts))
    base = alt.Chart(alt.Data(values=parts)).encode(y=variant_axis(names))
    bars = base.mark_bar().encode(
        x=alt.X(
            "value:Q",
            title="Memory after generation ↓, MB",
            stack="zero",
            axis=alt.Axis(tickCount=6),
        ),
        color=alt.Color("part:N", sort=kinds, title=None),
        order=alt.Order("part:N"),
        tooltip=tooltip("part", "MB"),
    )
    ticks = (
        alt.Chart(alt.Data(values=peaks))
        .mark_point(filled=True, size=60, opacity=1, style="ink")
        .encode(
            x="value:Q",
            y=variant_axis(names),
            shape=alt.Shape("part:N", title=None, scale=alt.Scale(range=["diamond"])),
            tooltip=tooltip("part", "MB"),
        )
    )
    return alt.layer(bars, ticks).properties(width=width, height=ROW * len(names))


def factors(comparison: Comparison, names: list[str], width: int) -> alt.LayerChart | None:
    """Each variant's decode speed over the baseline's, multiplied together step by step."""
    rows: list[Row] = []
    reached: list[Row] = []
    for name in names:
        at = 1.0
        for step in comparison.factors.get(name, []):
            ratio = step.decode
            low, high = ratio.ci95 or (ratio.value, ratio.value)
            rows.append(
                {
                    "variant": name, "change": step.change, "start": at, "end": at * ratio.value,
                    "value": ratio.value, "low": low, "high": high,
                    "step": f"{step.start} → {step.end}",
                    "said": "tied with 1" if ratio.tie else "supported by the data",
                }
            )  # fmt: skip
            at *= ratio.value
        if comparison.factors.get(name):
            reached.append({"variant": name, "end": at, "text": f"×{number(at)}"})
    if not rows:
        return None
    shown = [name for name in names if comparison.factors.get(name)]
    ends = [1.0, *(r["start"] for r in rows), *(r["end"] for r in rows)]
    domain = [0.9 * min(ends), 1.25 * max(ends)]
    x = alt.X(
        "start:Q",
        title=f"Decode speed, × {comparison.baseline}",
        scale=alt.Scale(type="log", domain=domain, nice=False),
        axis=alt.Axis(format="~g", tickCount=6),
    )
    changes = list(dict.fromkeys(r["change"] for r in rows))
    bars = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar(stroke="white", strokeWidth=0.5)
        .encode(
            x=x,
            x2="end",
            y=variant_axis(shown),
            yOffset=alt.YOffset("change:N", sort=changes),
            color=alt.Color("change:N", sort=changes, title=None),
            opacity=alt.Opacity(
                "said:N",
                title=None,
                scale=alt.Scale(domain=["supported by the data", "tied with 1"], range=[1, 0.4]),
            ),
            tooltip=[alt.Tooltip("step:N", title="Step"), *tooltip("change", "×"), "said:N"],
        )
    )
    text = (
        alt.Chart(alt.Data(values=reached))
        .mark_text(align="left", dx=5, style="label")
        .encode(x="end:Q", y=variant_axis(shown), text="text:N")
    )
    one = alt.Chart(alt.Data(values=[{"at": 1}])).mark_rule(style="quiet").encode(x="at:Q")
    height = max(ROW, 12 * len(changes)) * len(shown)
    return alt.layer(one, bars, text).properties(width=width, height=height)


def divergence(comparison: Comparison, names: list[str], width: int) -> alt.LayerChart | None:
    """The mean, the 99th percentile and the largest divergence from the reference."""
    kinds = {"kld_mean": "mean", "kld_p99": "99th percentile", "kld_max": "largest"}
    rows = [
        row
        for metric, kind in kinds.items()
        for row in rows_of(comparison, names, metric, quantile=kind)
    ]
    positive = [r for r in rows if r["value"] > 0]
    if not positive:
        return None
    low = min(r["value"] for r in positive) / 2
    for row in rows:  # a logarithm has no place for zero: it is drawn at the plot's edge
        row["drawn"] = max(row["value"], low)
        row["low"] = max(row["low"], low)
    high = max(r["high"] for r in positive) * 1.5
    x = alt.X(
        "drawn:Q",
        title="KL divergence ↓, nats",
        scale=alt.Scale(type="log", domain=[low, high], nice=False),
        axis=alt.Axis(format="~g", tickCount=5),
    )
    shown = [n for n in names if any(r["variant"] == n for r in rows)]
    return dots(rows, shown, "quantile", list(kinds.values()), x, width, "nats")


def accuracy(comparison: Comparison, names: list[str], width: int) -> alt.TopLevelMixin | None:
    """The share of questions answered right, by group of questions."""
    prefix = "question_accuracy: "
    groups = list(
        dict.fromkeys(
            metric.removeprefix(prefix)
            for name in names
            for metric in comparison.results[name].quality or {}
            if metric.startswith(prefix)
        )
    )
    if not groups:
        return None
    rows = [
        row
        for group in groups
        for row in rows_of(comparison, names, prefix + group, 100.0, group=group)
    ]
    columns = 1 if width <= NARROW else 3
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=variant_axis([n for n in names if any(r["variant"] == n for r in rows)]),
        color=alt.Color("variant:N", legend=None, scale=alt.Scale(domain=names)),
        tooltip=tooltip("group", "%"),
    )
    x = alt.X(
        "value:Q",
        title="Right ↑, %",
        scale=alt.Scale(domain=[0, 100]),
        axis=alt.Axis(values=[0, 25, 50, 75]),
    )
    intervals = base.mark_rule(strokeWidth=2).encode(x=of_field(x, "low"), x2="high")
    points = base.mark_point(filled=True, size=60, opacity=1).encode(
        x=x,
        shape=shapes("variant", names, legend=None),
    )
    panel = width if columns == 1 else (width - 60) // 3
    return (
        alt.layer(intervals, points)
        .properties(width=panel, height=18 * len(names))
        .facet(facet=alt.Facet("group:N", sort=groups, title=None), columns=columns)
    )


Draw = Callable[[Comparison, list[str], int], alt.TopLevelMixin | None]
DRAW: dict[str, Draw] = {
    "tradeoff": tradeoff,
    "questions": questions,
    "load": load,
    "memory": memory,
    "lengths": lengths,
    "contexts": contexts,
    "factors": factors,
    "divergence": divergence,
    "accuracy": accuracy,
    "recipes": recipes,
}


def chart(name: str, comparison: Comparison, width: int = WIDE) -> alt.TopLevelMixin:
    """A chart with its title; what is not comparable is drawn beneath each other."""
    charts = []
    groups = apart(name, comparison)
    for title, names in groups.items():
        chart = DRAW[name](comparison, names, width) or missing(width)
        if len(groups) > 1:
            chart = chart.properties(title=title)
        charts.append(chart)
    whole = charts[0] if len(charts) == 1 else alt.vconcat(*charts)
    return whole if name in ("tradeoff", "questions") else whole.properties(title=CHARTS[name])


def apart(name: str, comparison: Comparison) -> dict[str, list[str]]:
    """Variants by what may share a plot: a machine, and for divergences a model, with its title."""
    groups: dict[str, list[str]] = {}
    for machine, results in by_machine(comparison.results).items():
        for variant, result in results.items():
            model = f", {result.model.name}" if name in ("divergence", "contexts") else ""
            groups.setdefault(f"Machine {machine}{model}", []).append(variant)
    return groups


def missing(width: int) -> alt.Chart:
    """What is shown where nothing was measured."""
    return (
        alt.Chart(alt.Data(values=[{"text": "Not measured in this experiment."}]))
        .mark_text(style="label")
        .encode(text="text:N")
        .properties(width=width, height=60)
    )
