"""Numbers as people read them, and text from others made inert for Markdown and terminals."""

import re
import unicodedata
from math import floor, log10
from typing import Protocol

MARKUP = re.compile(r"[\\`*\[\]<>|~&]|(?<![^\W_])_|_(?![^\W_])")  # q4_k_m needs no escape

BEGINS = r"(?:file://|(?:(?<![^\s=,;([{<|\"'`])|(?<=-[IL]))(?=[~/])|(?<=:)(?=~|/(?!/)))"
PART = r"[^/\n:;,'\"()<>|`]"
FOLDERS = re.compile(rf"{BEGINS}(?:~\w*/+|/+(?={PART}+/))(?:{PART}+/+)*(?=\S)")


def without_folders(text: str) -> str:
    """Text for others: of each absolute path the last part alone, as of a file's name.

    A path before ``: ``, where most messages have theirs, may hold any character.
    """
    *before, last = text.split(": ")
    names = [p.rstrip("/").rpartition("/")[2] if FOLDERS.match(p) else p for p in before]
    return FOLDERS.sub("", ": ".join([*names, last]))


def visible(text: str) -> str:
    """Control, direction and other invisible characters as \\u{…}; everything else as it is."""
    return "".join(
        rf"\u{{{ord(c):x}}}" if unicodedata.category(c)[0] == "C" or c in "\u2028\u2029" else c
        for c in text
    )


def inert(text: str) -> str:
    """Text that shows as itself in Markdown, table cells included, and moves no terminal."""
    return visible(MARKUP.sub(r"\\\g<0>", text))


def as_code(text: str) -> str:
    """The text as code, or inert where it would end the code or a table's cell."""
    return f"`{visible(text)}`" if text and not set(text) & set("`|") else inert(text)


class Interval(Protocol):
    """A value with its 95 % interval, where it has one."""

    @property
    def value(self) -> float: ...

    @property
    def ci95(self) -> tuple[float, float] | None: ...


def number(value: float) -> str:
    """Three significant digits, at most two after the point, never an exponent.

    Below 0.01 two significant digits, so that nothing but 0 reads 0.00.
    """
    if 0 < value < 0.01:
        return f"{value:.{1 - floor(log10(value))}f}"
    rounded = float(f"{value:.3g}")  # tells the digits alone: 0.5346 rounded twice is 0.54
    digits = 0 if rounded >= 100 else 1 if rounded >= 10 else 2
    return f"{value:.{digits}f}"


def percent(share: float) -> str:
    """A share in whole percent: 55 %."""
    return f"{100 * share:.0f} %"


def times(ratio: Interval) -> str:
    """A ratio with its interval: ×2.90 (2.71 to 3.08)."""
    interval = f" ({number(ratio.ci95[0])} to {number(ratio.ci95[1])})" if ratio.ci95 else ""
    return f"×{number(ratio.value)}{interval}"
