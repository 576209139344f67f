"""Show what changed between two runs of the lab, beyond chance and the machine's drift.

Each run is a results folder or a published file, so two machines, days or builds can be compared.
"""

import argparse
from pathlib import Path

from tabulate import tabulate

from minillm_lab.commands import folder
from minillm_lab.comparison.diff import (
    DRIFT,
    MEMORY_DRIFT,
    Change,
    Difference,
    Pair,
    compare_runs,
    label,
)
from minillm_lab.comparison.published import Figure, Published, publish, read_published
from minillm_lab.wording import as_code, inert, number

EXAMPLES = (
    "minillm-lab diff results-before results",
    "minillm-lab diff theirs.json results --drift 10%",
)
UNITS = {"seconds": (1.0, "s"), "bytes": (1e-6, "MB"), "second": (1.0, "t/s")}


def read_either(path: Path) -> Published:
    """A results folder or a published file, as published results."""
    return publish(folder.read_comparison(path)) if path.is_dir() else read_published(path)


def shown(pair: Pair, figure: Figure) -> str:
    """A figure of a pair with its unit."""
    if pair.kind == "ratios":
        return f"×{number(figure.value)}"
    if pair.kind == "quality":
        return f"{figure.value:.4g}"
    ending = pair.metric.partition("_at_")[0].rpartition("_")[2]
    scale, unit = UNITS[ending]
    return f"{number(scale * figure.value)} {unit}"


def row(change: Change) -> list[str]:
    pair = change.pair
    sign = "" if pair.kind == "quality" else "×"
    low, high = change.ci95
    name = label(pair.metric) + (", to the baseline" if pair.kind == "ratios" else "")
    difference = f"{change.value:+.3g}" if not sign else f"×{change.value:.3g}"
    return [
        as_code(pair.variant),
        name,
        shown(pair, pair.before),
        shown(pair, pair.after),
        f"{difference} ({low:.3g} to {high:.3g})",
    ]


def markdown(difference: Difference, before: str, after: str, drift: float = DRIFT) -> str:
    """The difference as Markdown; the differences between the runs themselves come first."""
    parts = [f"## {inert(before)} → {inert(after)}"]
    if difference.identity:
        parts.append("\n".join(f"- {line}" for line in difference.identity))
    else:
        parts.append("Same machine, versions, model files and protocol.")
    if difference.changed:
        header = ["variant", "figure", "before", "after", "change (95 % interval)"]
        rows = [row(change) for change in difference.changed]
        parts.append(tabulate(rows, headers=header, tablefmt="github", disable_numparse=True))
    compared = len(difference.changed) + len(difference.unchanged)
    if not compared:
        parts.append("**No figures of the two runs can be compared.**")
    elif not difference.changed:
        parts.append(f"**No difference**: none of {compared} figures changed beyond its interval.")
    else:
        parts.append(f"{len(difference.unchanged)} of {compared} figures show no change.")
    if smallest := difference.smallest(drift):
        listed = ", ".join(f"{as_code(n)} {100 * share:.0f} %" for n, share in smallest.items())
        parts.append(f"The smallest change of decode speed that would have been claimed: {listed}.")
    if few := difference.too_few_chunks():
        listed = ", ".join(map(as_code, few))
        parts.append(
            "The text has too few chunks: a KL divergence that grew by the same share on each would"
            f" not be claimed, however large the share: {listed}; set more 'chunks' in 'quality'."
        )
    if difference.not_compared:
        lines = "\n".join(f"- {line}" for line in difference.not_compared)
        parts.append(f"Not compared:\n\n{lines}")
    parts.append(
        "All claims hold together at 5 %: of twenty comparisons of a run with its like, at most one"
        " claims any change. Speeds and ratios from trials are compared in one state of the"
        " machine."
        f" Up to {100 * drift:g} % of a time, a speed or a ratio counts as the machine's drift, and"
        f" up to {100 * MEMORY_DRIFT:g} % of memory as the allocator's."
    )
    return "\n\n".join(parts)


def share(given: str) -> float:
    """A share on the command line: 20% or 20 is 0.2."""
    try:
        found = float(given.removesuffix("%").strip()) / 100
    except ValueError:
        found = -1.0
    if not 0 <= found < 10:
        raise argparse.ArgumentTypeError(f"{given!r} is not a share; write it as 20%")
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("before", type=Path, help="a results folder or a published file")
    parser.add_argument("after", type=Path, help="another results folder or published file")
    parser.add_argument(
        "--drift",
        type=share,
        default=DRIFT,
        help="changes of speed up to this share are not claimed (default: 20%%)",
    )


def main(arguments: argparse.Namespace) -> None:
    before, after = read_either(arguments.before), read_either(arguments.after)
    difference = compare_runs(before, after, arguments.drift)
    names = str(arguments.before), str(arguments.after)
    print(markdown(difference, *names, arguments.drift))
