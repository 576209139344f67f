"""Draw the charts as SVG, in a light and a dark theme; the same input gives the same bytes."""

import argparse
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from minillm_lab.comparison.shapes import Comparison
from minillm_lab.jobs.command import run
from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import write_text
from minillm_lab.records import read_record
from minillm_lab.report import CHARTS
from minillm_lab.report.charts.catalogue import chart

FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
# Okabe and Ito's colours, which people who see red and green alike can tell apart
LIGHT = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D1F"]
DARK = ["#56B4E9", "#E69F00", "#2BC79A", "#E49BC6", "#F0E442", "#6C9BE8", "#FFFFFF", "#C9A95B"]


def theme(ground: str, ink: str, quiet: str, grid: str, colours: list[str]) -> dict[str, Any]:
    """A Vega-Lite config: everything about a chart that is not what it says."""
    words = {"labelColor": ink, "titleColor": ink, "labelFontSize": 12, "titleFontSize": 12}
    return {
        "background": ground,
        "font": FONT,
        "padding": {"left": 20, "right": 20, "top": 10, "bottom": 10},
        "range": {"category": colours},
        "view": {"stroke": None},
        "title": {
            "color": ink, "subtitleColor": quiet, "anchor": "start", "fontSize": 16,
            "subtitleFontSize": 12, "offset": 12, "frame": "group",
        },
        "axis": words | {
            "gridColor": grid, "domainColor": quiet, "tickColor": quiet, "labelLimit": 150,
            "titleFontWeight": "normal", "titlePadding": 8,
        },
        "axisX": {"labelFlush": False, "labelSeparation": 12},
        "legend": words | {
            "orient": "bottom", "titleFontWeight": "normal", "symbolStrokeColor": quiet,
            "labelLimit": 200, "columnPadding": 28, "symbolOpacity": 1,
            "layout": {"bottom": {"margin": 24}},
        },
        "header": words,
        "style": {
            "label": {"color": ink, "fontSize": 12},
            "quiet": {"color": quiet},
            "ink": {"color": ink},
        },
    }  # fmt: skip


THEMES = {
    "light": theme("#ffffff", "#1f2328", "#59636e", "#e6e8eb", LIGHT),
    "dark": theme("#0d1117", "#e6edf3", "#9198a1", "#262c36", DARK),
}


def svg(chart: alt.TopLevelMixin, shades: str = "light") -> str:
    """A chart as SVG. Raises LabError when its specification does not hold."""
    try:
        drawn: str = vl_convert.vegalite_to_svg(
            chart.to_dict(), config=THEMES[shades], allowed_base_urls=[]
        )
    except ValueError as error:
        raise LabError(f"a chart cannot be drawn: {error}") from error
    return drawn + "\n"


def main(arguments: argparse.Namespace) -> None:
    comparison = read_record(arguments.comparison, Comparison)
    for path in arguments.svg:
        name, _, shades = path.stem.partition("-")
        if name not in CHARTS or shades not in ("", "dark"):
            raise LabError(f"{path}: no such chart; charts: {', '.join(CHARTS)}")
        write_text(path, svg(chart(name, comparison), shades or "light"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comparison", type=Path, required=True, help="results/comparison.json")
    parser.add_argument(
        "--svg", type=Path, nargs="+", required=True, help="files to draw: load.svg, load-dark.svg"
    )
    run(main, parser)
