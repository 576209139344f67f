"""The trade-off: quality loss against decode speed; up and to the right is better.

A variant's marker is as large as its memory; the front joins the variants that no other of the
same model beats in both. Several models share one front, by bits per byte of the text, and in a
chart of its own by questions. Where no quality was measured, memory takes its place.
"""

from itertools import pairwise
from math import ceil, floor, log10, pi, sqrt
from typing import Any

import altair as alt

from minillm_lab.comparison.advice import choose
from minillm_lab.comparison.group import group_of
from minillm_lab.comparison.limits import default_limits
from minillm_lab.comparison.shapes import Comparison
from minillm_lab.quality.verdict import verdict
from minillm_lab.report.charts.parts import NARROW
from minillm_lab.report.charts.placing import Axis, Box, Marker, placed
from minillm_lab.report.picture import (
    ACROSS,
    BITS,
    LOSS,
    MEMORY,
    RIGHT,
    SPEED,
    Point,
    described,
    pareto_front,
    points,
    what_is_lost,
)
from minillm_lab.result import quantized_in
from minillm_lab.wording import number, percent

HEIGHT = 180
LARGEST = 450  # area of the largest marker, square pixels
LOST = {
    LOSS: "KL divergence, nats",
    BITS: "Bits per byte",
    RIGHT: "Questions wrong, %",
    MEMORY: "Memory, MB",
}
BETTER = {LOSS: "closer", BITS: "predicts better", RIGHT: "fewer", MEMORY: "less"}
FONT, CHARACTER = 13, 7.6  # pixels; a character of the label at its widest usual


def axes(found: list[Point], width: int, loss: str) -> tuple[Axis, Axis]:
    """The domains: every value, and of the intervals what does not dwarf the values."""
    fastest = max(p.speed for p in found)
    right = min(max(p.speed_high for p in found), 1.25 * fastest)
    x = Axis(0.0, 1.08 * right, width)
    if loss in ACROSS:
        low, high = min(p.loss_low for p in found), max(p.loss_high for p in found)
        return x, Axis(0.9 * low, 1.1 * high or 1.0, HEIGHT)
    if loss == MEMORY:
        return x, Axis(0.0, 1.15 * max(p.loss for p in found), HEIGHT)
    positive = [p for p in found if p.loss > 0] or found
    low = min(max(p.loss_low, p.loss / 3) for p in positive)
    high = max(min(p.loss_high, p.loss * 3) for p in positive)
    if low <= 0:  # nothing was lost by any: any decade shows it
        low, high = 1e-6, 1e-5
    return x, Axis(low / 2, high * 5, HEIGHT, log=True)


def tradeoff(comparison: Comparison, names: list[str], width: int) -> alt.LayerChart | None:
    """Quality loss against decode speed; marker size is memory; the front and baseline marked."""
    drawn = against_speed(comparison, names, width, what_is_lost(comparison, names))
    return drawn and drawn.properties(description=described(comparison, names))


def questions(comparison: Comparison, names: list[str], width: int) -> alt.LayerChart | None:
    """Questions wrong against decode speed, which several models may be compared by as well."""
    return against_speed(comparison, names, width, RIGHT)


def against_speed(
    comparison: Comparison, names: list[str], width: int, loss: str
) -> alt.LayerChart | None:
    """A loss against decode speed."""
    found = points(comparison, names, loss)
    if not found:
        return None
    x, y = axes(found, width, loss)
    best = pareto_front(found, loss in ACROSS)
    rows = [row(p, p in best, comparison, x, y) for p in found]
    base = alt.Chart(alt.Data(values=rows))
    by = "model" if len({p.model for p in found}) > 1 else "runtime"
    kinds = sorted({getattr(p, by) for p in found})
    layers = [
        line_of_front(best, x, y, loss),
        *intervals(base, by, kinds),
        markers(base, by, kinds, max(p.memory for p in found), loss),
        *labels(found, best, x, y),
    ]
    return alt.layer(*layers).properties(
        width=width,
        height=HEIGHT,
        title=alt.TitleParams(**titles(comparison, names, found, loss, width)),
    )


def row(p: Point, on_front: bool, comparison: Comparison, x: Axis, y: Axis) -> dict[str, Any]:
    """A variant as the specification holds it: its figures, and where they are drawn."""
    return {
        "variant": p.name,
        "model": p.model,
        "runtime": p.runtime,
        "verdict": p.verdict,
        "speed": p.speed,
        "speed low": x.held(p.speed_low),
        "speed high": x.held(p.speed_high),
        "loss": p.loss,
        "drawn": y.held(p.loss),
        "loss low": y.held(p.loss_low),
        "loss high": y.held(p.loss_high),
        "memory": p.memory,
        "front": on_front,
        "baseline": p.name == comparison.baseline,
    }


def scaled(axis: Axis, reverse: bool = False) -> alt.Scale:
    kind = "log" if axis.log else "linear"
    ends = [axis.low, axis.high]
    return alt.Scale(type=kind, domain=ends, nice=False, zero=False, reverse=reverse)


def ticks(axis: Axis) -> list[float]:
    """Powers of ten inside a logarithmic axis, every second one where there are many."""
    exponents = range(ceil(log10(axis.low)), floor(log10(axis.high)) + 1)
    return [10.0**e for e in exponents][:: 1 if len(exponents) <= 7 else 2]


def line_of_front(best: list[Point], x: Axis, y: Axis, loss: str) -> alt.Chart:
    """The front, and with it the axes."""
    values = [
        {"speed": p.speed, "drawn": y.held(p.loss), "of": "all" if loss in ACROSS else p.model}
        for p in best
    ]
    lost = LOST[loss]
    wanted = alt.Axis(values=ticks(y), format="~g") if y.log and ticks(y) else alt.Axis()
    wide = x.pixels > NARROW
    return (
        alt.Chart(alt.Data(values=values))
        .mark_line(strokeDash=[5, 4], strokeWidth=1.5, style="quiet")
        .encode(
            x=alt.X(
                "speed:Q",
                title="Decode speed, tokens per second" + (" (faster →)" if wide else " →"),
                scale=scaled(x),
                axis=alt.Axis(tickCount=8 if wide else 4),
            ),
            y=alt.Y(
                "drawn:Q",
                title=f"{lost} ({BETTER[loss]} ↑)" if wide else f"{lost}, less ↑",
                scale=scaled(y, reverse=True),  # better is up, as faster is right
                axis=wanted,
            ),
            detail="of:N",
        )
    )


def intervals(base: alt.Chart, by: str, kinds: list[str]) -> list[alt.Chart]:
    """95 % intervals both ways."""
    bars = base.mark_rule(strokeWidth=1.2, opacity=0.8)
    colour = alt.Color(f"{by}:N", title=None, scale=alt.Scale(domain=kinds))
    return [
        bars.encode(x="speed low:Q", x2="speed high", y="drawn:Q", color=colour),
        bars.encode(y="loss low:Q", y2="loss high", x="speed:Q", color=colour),
    ]


def markers(base: alt.Chart, by: str, kinds: list[str], most: float, loss: str) -> alt.Chart:
    """A marker for each variant: filled on the front, hollow off it."""
    return base.mark_point(strokeWidth=2, opacity=0.9).encode(
        x="speed:Q",
        y="drawn:Q",
        color=alt.Color(f"{by}:N", title=None, scale=alt.Scale(domain=kinds)),
        shape=alt.Shape(
            f"{by}:N",
            title=None,
            scale=alt.Scale(domain=kinds, range=["circle", "square", "triangle-up", "diamond"]),
        ),
        size=alt.Size(
            "memory:Q",
            title="Memory, MB",
            scale=alt.Scale(domain=[0, most or 1], range=[0, LARGEST]),
            legend=alt.Legend(
                values=rounded(most), format="d", symbolFillColor="transparent", titleOrient="left"
            ),
        ),
        fillOpacity=alt.condition("datum.front", alt.value(0.45), alt.value(0)),
        fill=alt.Fill(f"{by}:N", title=None, scale=alt.Scale(domain=kinds)),
        tooltip=[
            alt.Tooltip("variant:N", title="Variant"),
            *([alt.Tooltip("model:N", title="Model")] if by == "model" else []),
            alt.Tooltip("runtime:N", title="Runtime"),
            alt.Tooltip("verdict:N", title="Quality"),
            alt.Tooltip("speed:Q", title="Decode, t/s", format=".4g"),
            alt.Tooltip("loss:Q", title=LOST[loss], format=".3g"),
            alt.Tooltip("memory:Q", title="Memory, MB", format=".4g"),
        ],
    )


def rounded(most: float) -> list[float]:
    """Two sizes for the legend: one digit each, the larger at most the largest marker's."""
    if most <= 0:
        return []
    step = 10.0 ** floor(log10(most))
    large = floor(most / step) * step
    return [large / 4 if large / step > 2 else large / 2, large]


def radius(memory: float, most: float) -> float:
    """The radius in pixels of a marker, whose area goes with the memory."""
    return sqrt(LARGEST * memory / (most or 1) / pi)


def labels(found: list[Point], best: list[Point], x: Axis, y: Axis) -> list[alt.Chart]:
    """A name beside each marker, none on another, and a thin line to those that lie far off."""
    most = max(p.memory for p in found)
    marked, lines = [], []
    for p in found:
        at_x, at_y = x.pixel(p.speed), y.pixel(y.held(p.loss))
        width = CHARACTER * len(p.label)
        marked.append(Marker(at_x, at_y, radius(p.memory, most), width, FONT + 2))
        left, right = x.pixel(x.held(p.speed_low)), x.pixel(x.held(p.speed_high))
        top, bottom = y.pixel(y.held(p.loss_low)), y.pixel(y.held(p.loss_high))
        lines += [Box(left, at_y - 1, right, at_y + 1), Box(at_x - 1, top, at_x + 1, bottom)]
    corners = [(x.pixel(p.speed), y.pixel(y.held(p.loss))) for p in best]
    for (x0, y0), (x1, y1) in pairwise(corners):
        lines += [dot(x0 + (x1 - x0) * i / 40, y0 + (y1 - y0) * i / 40) for i in range(41)]
    boxes = placed(marked, lines, Box(0, 0, x.pixels, y.pixels))
    named, leaders = [], []
    for p, mark, box in zip(found, marked, boxes, strict=True):
        middle, height = (box.left + box.right) / 2, (box.top + box.bottom) / 2
        named.append({"label": p.label, "x": x.value(middle), "y": y.value(height)})
        gap_x = max(box.left - mark.x, mark.x - box.right, 0)
        gap_y = max(box.top - mark.y, mark.y - box.bottom, 0)
        if sqrt(gap_x**2 + gap_y**2) > mark.radius + 14:
            end_x = min(max(mark.x, box.left), box.right)
            end_y = min(max(mark.y, box.top), box.bottom)
            leaders.append(
                {"x": p.speed, "y": y.held(p.loss), "x2": x.value(end_x), "y2": y.value(end_y)}
            )
    drawn = alt.Chart(alt.Data(values=leaders)).mark_rule(
        style="quiet", strokeWidth=1, strokeDash=[1, 3]
    )  # dotted, as no interval is
    text = alt.Chart(alt.Data(values=named)).mark_text(
        style="label", fontSize=FONT, align="center", baseline="middle"
    )
    return [
        drawn.encode(x="x:Q", y="y:Q", x2="x2", y2="y2"),
        text.encode(x="x:Q", y="y:Q", text="label:N"),
    ]


def dot(x: float, y: float) -> Box:
    """A spot of a line that labels keep off."""
    return Box(x - 3, y - 3, x + 3, y + 3)


def titles(
    comparison: Comparison, names: list[str], found: list[Point], loss: str, width: int
) -> dict[str, Any]:
    """The finding as title, and beneath it how to read the plot and what it leaves out."""
    files = (comparison.results[name].reference_files for name in names)
    whole = not any(map(quantized_in, files))
    beaten = f"closer to the {'unquantized model' if whole else 'reference'}"
    lines = [f"Dashed line: no variant is both faster and {beaten}; bars: 95 % intervals"]
    if loss in ACROSS:
        beaten = "better at predicting the text" if loss == BITS else "more often right"
        lines = [
            f"Dashed line, by values alone: no variant of any model is both faster and {beaten}",
            "Bars: 95 % intervals; where they overlap, the order is not settled",
        ]
    if loss == MEMORY:
        lines = ["Quality was not measured: memory takes its place; bars: 95 % intervals"]
    states = comparison.states.get(comparison.results[names[0]].machine["fingerprint"], [])
    if len(states) > 1:
        share = percent(states[0].share)
        lines.append(f"Speeds in state A of the machine, {share} of the readings")
    left_out = [n for n in names if n not in {p.name for p in found}]
    if left_out:
        lines.append(f"Not drawn, since a figure is missing: {', '.join(left_out)}")
    if width <= NARROW:
        lines = []  # the caption says it
    title = finding(comparison, names) if loss != RIGHT else "Questions wrong against speed"
    return {"text": title if width > NARROW else title.split(", "), "subtitle": lines}


def finding(comparison: Comparison, names: list[str]) -> str:
    """What the recommended variant gains over the baseline, and what it loses."""
    results = {name: comparison.results[name] for name in names}
    taken = choose(group_of(comparison, results), default_limits(results)).taken
    if taken is None:
        return "No variant is recommended"
    ratio = comparison.ratios[taken].get(SPEED)
    lost = verdict(results[taken].quality) or "quality not measured"
    if ratio is None or (taken != comparison.baseline and not ratio.ci95):
        return f"{taken}: {lost}"
    if ratio.tie:
        return f"{taken}: as fast as {comparison.baseline}, {lost}"
    return f"{taken}: {number(ratio.value)} × the decode speed of {comparison.baseline}, {lost}"
