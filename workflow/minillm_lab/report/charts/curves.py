"""The charts that are curves over a length in tokens: of a prompt, or of a context."""

import altair as alt

from minillm_lab.comparison.shapes import Comparison
from minillm_lab.quality.long_contexts import NOISE
from minillm_lab.report.charts.parts import (
    NARROW,
    Row,
    measured,
    of_field,
    rows_of,
    shapes,
    tooltip,
)
from minillm_lab.result import OF_CONTEXT, depths, long_contexts

AT_LENGTH = {  # metric: (title, unit, factor)
    "prefill_tokens_per_second": ("Prefill ↑", "t/s", 1.0),
    "decode_tokens_per_second": ("Decode ↑", "t/s", 1.0),
    "first_token_seconds": ("Time to first token ↓", "s", 1.0),
    "memory_bytes": ("Memory ↓", "MB", 1e-6),
}


def lengths(comparison: Comparison, names: list[str], width: int) -> alt.TopLevelMixin | None:
    """Speeds, time to first token and memory against the length of the prompt."""
    panels = []
    for metric, (title, unit, factor) in AT_LENGTH.items():
        rows = []
        for name in names:
            result = comparison.results[name]
            lengths = sorted({result.protocol["prompt_tokens"], *depths(result)})
            for tokens in lengths:  # all of rounds: trials are of one state, and have one length
                each = f"{metric}_at_{tokens}"
                rows += rows_of(comparison, [name], each, factor, length=tokens)
        if rows:
            panels.append((rows, "Prompt, tokens", f"{title}, {unit}", unit))
    return in_pairs(panels, names, width)


def contexts(comparison: Comparison, names: list[str], width: int) -> alt.TopLevelMixin | None:
    """Divergence of the same tokens after more and more of a text, and by position in it."""
    same, parts = list[Row](), list[Row]()
    for name in names:
        result = comparison.results[name]
        for context in long_contexts(result):
            same += rows_of(comparison, [name], f"{OF_CONTEXT}{context}", length=context)
        for part, figure in result.quality_by_position.items():
            if row := measured(name, figure):
                parts.append(row | {"length": int(part.partition("–")[2]) + 1})
    unit = "nats"
    panels = [
        (same, "Context, tokens", f"Divergence of the same tokens ↓, {unit}", unit),
        (parts, "End of the part, tokens", f"Divergence by position ↓, {unit}", unit),
    ]
    shown = [panel for panel in panels if any(row["value"] > 0 for row in panel[0])]
    return in_pairs(shown, names, width, logarithmic=True)


def in_pairs(
    panels: list[tuple[list[Row], str, str, str]],
    names: list[str],
    width: int,
    logarithmic: bool = False,
) -> alt.TopLevelMixin | None:
    """Panels of rows, two axes' titles and a unit: two beside each other, or one on a telephone."""
    if not panels:
        return None
    narrow = width <= NARROW
    panel_width = width if narrow else width // 2 - 40
    drawn = [
        length_panel(rows, names, x_title, y_title, unit, panel_width, logarithmic)
        for rows, x_title, y_title, unit in panels
    ]
    if narrow:
        return alt.vconcat(*drawn)
    return alt.vconcat(*(alt.hconcat(*drawn[i : i + 2]) for i in range(0, len(drawn), 2)))


def length_panel(
    rows: list[Row], names: list[str], x_title: str, y_title: str, unit: str, width: int,
    logarithmic: bool,
) -> alt.LayerChart:  # fmt: skip
    """A line for each variant over lengths in tokens; a logarithm has no place for zero."""
    lengths = sorted({r["length"] for r in rows})
    high = 1.05 * max(min(r["high"], 1.5 * r["value"]) for r in rows)
    scale = alt.Scale(domain=[0, high], clamp=True)
    if logarithmic:
        rows = [r for r in rows if r["value"] > 0]
        low = max(min(r["value"] for r in rows), NOISE) / 1.5
        rows = [r | {"value": max(r["value"], low), "low": max(r["low"], low)} for r in rows]
        scale = alt.Scale(type="log", domain=[low, 1.5 * high], nice=False, clamp=True)
    y = alt.Y("value:Q", title=y_title, scale=scale)
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X(
            "length:Q",
            title=x_title,
            scale=alt.Scale(type="log", base=2, nice=False, padding=12),
            axis=alt.Axis(values=lengths, format="d", grid=False),
        ),
        color=alt.Color("variant:N", title=None, scale=alt.Scale(domain=names)),
        tooltip=[alt.Tooltip("length:Q", title=x_title), *tooltip("variant", unit)],
    )
    lines = base.mark_line(strokeWidth=1.5).encode(y=y)
    intervals = base.mark_rule(opacity=0.5).encode(y=of_field(y, "low"), y2="high")
    points = base.mark_point(filled=True, size=60, opacity=1).encode(
        y=y, shape=shapes("variant", names)
    )
    return alt.layer(intervals, lines, points).properties(width=width, height=220)
