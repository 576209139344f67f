"""The page's picture: its points, the same in words, and how the page shows it.

charts/draw.py draws the picture; its files lie beside the page, in ``docs/``, since results are
never committed.
"""

from dataclasses import dataclass
from html import escape
from pathlib import Path

from minillm_lab.comparison.group import by_machine
from minillm_lab.comparison.shapes import Comparison
from minillm_lab.jobs.files import write_text
from minillm_lab.quality.verdict import verdict
from minillm_lab.report import quality
from minillm_lab.report.page import pictures
from minillm_lab.wording import number

SPEED, LOSS, BITS = "decode_tokens_per_second", "kld_mean", "bits_per_byte"
RIGHT = "question_accuracy"  # drawn as the share that is wrong, in %
ACROSS = (BITS, RIGHT)  # what two models may be compared by
MEMORY = "memory_after_generation_bytes"
SHOWN = 600  # pixels of width on the page: text, picture and the table's head fit one screen
LONGEST = 26  # characters of a name that are shown


@dataclass(frozen=True)
class Point:
    """A variant in the plot; in t/s, what ``loss`` is a value of (memory in MB), and MB."""

    name: str
    label: str
    model: str
    runtime: str
    verdict: str
    speed: float
    speed_low: float
    speed_high: float
    loss: float
    loss_low: float
    loss_high: float
    memory: float
    flawed: bool


def what_is_lost(comparison: Comparison, names: list[str]) -> str:
    """What is drawn against speed: divergence of one model, bits per byte of several, else memory.

    Divergences from two references never share an axis.
    """
    models = {comparison.results[name].model.name for name in names}
    loss = LOSS if len(models) == 1 else BITS
    return loss if models == {p.model for p in points(comparison, names, loss)} else MEMORY


def points(comparison: Comparison, names: list[str], loss: str) -> list[Point]:
    """The variants that have both figures."""
    found = []
    for name in names:
        result = comparison.results[name]
        offset, factor = {MEMORY: (0.0, 1e-6), RIGHT: (100.0, -100.0)}.get(loss, (0.0, 1.0))
        speed = result.metrics.get(SPEED)
        lost = result.metrics.get(loss) or (result.quality or {}).get(loss)
        if not speed or not lost or speed.value is None or lost.value is None:
            continue
        memory = result.metrics[MEMORY].value if MEMORY in result.metrics else None
        low, high = lost.ci95 or (lost.value, lost.value)
        low, high = sorted((offset + factor * low, offset + factor * high))
        shown = name if len(name) <= LONGEST else f"{name[:11]}…{name[12 - LONGEST :]}"
        shown = f"⚠ {shown}" if result.output.flaw else shown
        found.append(
            Point(
                name=name,
                label=f"{shown} (baseline)" if name == comparison.baseline else shown,
                model=result.model.name,
                runtime=f"{result.runtime['name']}, {result.runtime['backend']}",
                verdict=verdict(result.quality) or "not measured",
                speed=speed.value,
                speed_low=(speed.ci95 or (speed.value, speed.value))[0],
                speed_high=(speed.ci95 or (speed.value, speed.value))[1],
                loss=offset + factor * lost.value,
                loss_low=low,
                loss_high=high,
                memory=(memory or 0) / 1e6,
                flawed=bool(result.output.flaw),
            )
        )
    return found


def pareto_front(found: list[Point], across: bool = False) -> list[Point]:
    """The variants that none of the same model beats in speed and loss by value, slowest first.

    With ``across`` none of any model does. A variant whose answer means nothing is not ranked.
    """
    sound = [p for p in found if not p.flawed]

    def beaten(a: Point) -> bool:
        return any(
            (across or b.model == a.model)
            and b.speed >= a.speed
            and b.loss <= a.loss
            and (b.speed, b.loss) != (a.speed, a.loss)
            for b in sound
        )

    return sorted(
        (p for p in sound if not beaten(p)),
        key=lambda p: ("" if across else p.model, p.speed, p.name),
    )


def described(comparison: Comparison, names: list[str]) -> str:
    """The plot in words, for those who do not see it: every variant's figures."""
    loss = what_is_lost(comparison, names)
    found = points(comparison, names, loss)
    if not found:
        return "Nothing is drawn: no variant has a decode speed."
    said = [
        f"{p.label} {number(p.speed)} t/s,"
        + (f" {lost_in_words(comparison, p, loss)}," if loss != MEMORY else "")
        + f" {number(p.memory)} MB"
        + (", and its answer means nothing" if p.flawed else "")
        for p in found
    ]
    what = {
        LOSS: "Quality loss (mean KL divergence in nats)",
        BITS: "Bits per byte of the evaluation text",
        MEMORY: "Memory",
    }[loss]
    return f"{what} against decode speed, less and faster being better: {'; '.join(said)}."


def lost_in_words(comparison: Comparison, p: Point, loss: str) -> str:
    measured = (comparison.results[p.name].quality or {})[loss]
    unit = "nats" if loss == LOSS else "bits per byte"
    return f"{quality.plain(measured, 1.0, 4)} {unit}"


def element(comparison: Comparison, page: Path) -> str:
    """The picture as HTML for the page: light or dark as the reader has it, and in words."""
    light, dark = (file.relative_to(page.parent).as_posix() for file in pictures(page))
    machines = by_machine(comparison.results)
    words = [described(comparison, list(results)) for results in machines.values()]
    return "\n".join(
        [
            "<picture>",
            f'  <source media="(prefers-color-scheme: dark)" srcset="{escape(dark)}">',
            f'  <img width="{SHOWN}" alt="{escape(" ".join(words))}" src="{escape(light)}">',
            "</picture>",
        ]
    )


def put(page: Path, drawn: tuple[Path, Path]) -> bool:
    """Put the drawn files beside the page; say whether they were there already."""
    current = True
    for source, target in zip(drawn, pictures(page), strict=True):
        text = source.read_text(encoding="utf-8")
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            current = False
            write_text(target, text)
    return current
