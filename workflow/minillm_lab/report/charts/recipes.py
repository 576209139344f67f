"""The charts of recipes: what each tensor loses in one type, and the type that it got."""

import altair as alt

from minillm_lab.comparison.shapes import Comparison
from minillm_lab.experiment.mixtures import TENSOR_TYPES
from minillm_lab.recipe import Chosen
from minillm_lab.report.charts.parts import Row
from minillm_lab.wording import number

OUTSIDE = "–"  # the column of tensors outside the layers


def recipes(comparison: Comparison, names: list[str], width: int) -> alt.TopLevelMixin | None:
    """Two maps of roles and layers for each recipe, the first once for each search."""
    panels, searched = list[alt.Chart](), list[str]()
    several = len({comparison.results[name].model.name for name in names}) > 1
    found = {n: recipe for n in names if (recipe := comparison.results[n].model.recipe)}
    used = {group.type for recipe in found.values() for group in recipe.groups}
    types = [type_ for type_ in TENSOR_TYPES if type_ in used]  # the finest first
    for name, recipe in found.items():
        rows = [row for group in recipe.groups for row in cells(group)]
        layers = [OUTSIDE, *sorted({r["layer"] for r in rows if r["layer"] != OUTSIDE}, key=int)]
        model = comparison.results[name].model.name if several else ""
        search = recipe.same and str([(model, r["role"], r["layer"], r["loss"]) for r in rows])
        if search and search not in searched:
            searched.append(search)
            legend = alt.Legend(title="nats", format=".1e", type="symbol")
            color = alt.Color(
                "loss:Q", scale=alt.Scale(type="log", scheme="viridis"), legend=legend
            )
            title = " ".join(["Lost in", recipe.same or "", *([f"by {model}"] if model else [])])
            lost = alt.Tooltip("loss:Q", title=f"Lost in {recipe.same}, nats", format=".2e")
            panels.append(panel(rows, layers, color, f"{title}, by layer", width, lost))
        scale = alt.Scale(domain=types, scheme="tableau20" if len(types) > 10 else "tableau10")
        color = alt.Color("type:N", scale=scale, title=None)
        title = f"{name}: types in {number(recipe.bytes / 1e6)} MB"
        lost = alt.Tooltip("lost:Q", title="Lost in its type, nats", format=".2e")
        panels.append(panel(rows, layers, color, title, width, lost))
    if not panels:
        return None
    return alt.vconcat(*panels).resolve_scale(color="independent")


def cells(group: Chosen) -> list[Row]:
    """A cell for each layer of a group, which share its losses: in one type, and in its own."""
    layers = [str(layer) for layer in group.layers] or [OUTSIDE]
    loss = max((group.loss_in_same or 0) / len(layers), 1e-9)
    of_group = {"role": group.role, "type": group.type, "loss": loss}
    return [of_group | {"layer": n, "lost": group.loss / len(layers)} for n in layers]


def panel(
    rows: list[Row],
    layers: list[str],
    color: alt.Color,
    title: str,
    width: int,
    lost: alt.Tooltip,
) -> alt.Chart:
    every = [layer for layer in layers if layer == OUTSIDE or int(layer) % 5 == 0]
    axis = alt.Axis(values=every, labelAngle=0)
    roles = list(dict.fromkeys(sorted(r["role"] for r in rows)))
    return (
        alt.Chart(alt.Data(values=rows), title=title)
        .mark_rect()
        .encode(
            x=alt.X("layer:O", sort=layers, title="Layer", axis=axis),
            y=alt.Y("role:N", sort=roles, title=None),
            color=color,
            tooltip=[
                alt.Tooltip("role:N", title="Tensor"),
                alt.Tooltip("layer:N", title="Layer"),
                alt.Tooltip("type:N", title="Type"),
                lost,
            ],
        )
        .properties(width=width, height=18 * len(roles))
    )
