"""Which of two variants lost measurably less, and which of two models predicts better."""

import numpy as np

from minillm_lab.quality.intervals import FEWEST, half_width
from minillm_lab.records import QualityMetric
from minillm_lab.result import Result


def closer(a: Result, b: Result) -> bool | None:
    """Whether ``a`` is measurably closer to the reference than ``b``.

    By the differences chunk by chunk of the text, with Student's interval; else where the intervals
    of both part. None where that cannot be told: another model, another text, or no interval.
    """
    if not same_text(a, b) or a.model.name != b.model.name:
        return None
    ours, theirs = (r.quality_by_chunk.get("kld_mean", []) for r in (a, b))
    if len(ours) != len(theirs) or len(ours) < FEWEST:
        return lower(*((r.quality or {}).get("kld_mean") for r in (a, b)))
    apart = np.subtract(theirs, ours)
    reach = half_width(apart)
    return None if reach is None else bool(apart.mean() > reach)


def predicts_better(a: Result, b: Result, unquantized: bool = False) -> bool | None:
    """Whether the model of ``a`` needs measurably fewer bits per byte of the text than ``b``'s.

    By the difference of the two ratios over blocks of the text that both have, whatever their
    tokenizers (Cochran 1977, section 6.3), with Student's interval. ``unquantized``: their
    references instead. None where that cannot be told.
    """
    if not same_text(a, b):
        return None
    column = 1 if unquantized else 0
    pairs = zip(a.quality_bits_by_block, b.quality_bits_by_block, strict=False)
    both = [(x[column], x[2], y[column], y[2]) for x, y in pairs if x[2] and y[2]]
    if len(both) < FEWEST:
        return None
    our_bits, our_bytes, their_bits, their_bytes = np.array(both).T
    ours, theirs = our_bits.sum() / our_bytes.sum(), their_bits.sum() / their_bytes.sum()
    residuals = (their_bits - theirs * their_bytes) / their_bytes.mean()
    residuals -= (our_bits - ours * our_bytes) / our_bytes.mean()
    reach = half_width(residuals)
    return None if reach is None else bool(theirs - ours > reach)


def lower(a: QualityMetric | None, b: QualityMetric | None) -> bool | None:
    """Whether a figure is measurably lower than another: the intervals part; None without them."""
    if not (a and b and a.ci95 and b.ci95):
        return None
    return a.ci95[1] < b.ci95[0]


def same_text(a: Result, b: Result) -> bool:
    """Whether both were scored on the same text."""
    one, other = ((r.protocol.get("quality") or {}).get("text_sha256") for r in (a, b))
    return one is not None and one == other
