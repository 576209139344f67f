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
    found = {n: recipe for n in names if (recipe := comparison.results[n].model.recipe)}
    used = {group.type for recipe in found.values() for group in recipe.groups}
    types = sorted(used, key=TENSOR_TYPES.index)  # the finest first
    for name, recipe in found.items():
        rows = [row for group in recipe.groups for row in cells(group)]
        layers = [OUTSIDE, *sorted({r["layer"] for r in rows if r["layer"] != OUTSIDE}, key=int)]
        search = recipe.same and str([(r["role"], r["layer"], r["loss"]) for r in rows])
        if search and search not in searched:
            searched.append(search)
            legend = alt.Legend(title="nats", format=".1e", type="symbol")
            color = alt.Color(
                "loss:Q", scale=alt.Scale(type="log", scheme="viridis"), legend=legend
            )
            panels.append(panel(rows, layers, color, f"Lost in {recipe.same}, by layer", width))
        scale = alt.Scale(domain=types, scheme="tableau20" if len(types) > 10 else "tableau10")
        color = alt.Color("type:N", scale=scale, title=None)
        title = f"{name}: types in {number(recipe.bytes / 1e6)} MB"
        panels.append(panel(rows, layers, color, title, width))
    if not panels:
        return None
    return alt.vconcat(*panels).resolve_scale(color="independent")


def cells(group: Chosen) -> list[Row]:
    """A cell for each layer of a group, which share its loss."""
    layers = [str(layer) for layer in group.layers] or [OUTSIDE]
    loss = max((group.loss_in_same or 0) / len(layers), 1e-9)
    return [
        {"role": group.role, "layer": layer, "loss": loss, "type": group.type} for layer in layers
    ]


def panel(
    rows: list[Row], layers: list[str], color: alt.Color, title: str, width: int
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
                alt.Tooltip("loss:Q", title="Lost, nats", format=".2e"),
            ],
        )
        .properties(width=width, height=18 * len(roles))
    )
