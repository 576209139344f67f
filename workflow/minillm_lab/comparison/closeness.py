"""Comparing quality: which of two variants lost less, which of two models predicts better."""

import numpy as np

from minillm_lab.quality.intervals import FEWEST, half_width
from minillm_lab.records import QualityMetric
from minillm_lab.result import Result, quantized_in


def closer(a: Result, b: Result) -> bool | None:
    """Whether ``a`` is measurably closer to the reference than ``b``.

    The differences are taken chunk by chunk of the text, with Student's interval. Without chunks in
    common, the two intervals must not overlap. None if that cannot be known: another model, another
    text, no interval, or a quantized reference, which finer weights differ from by being finer.
    """
    if not same_text(a, b) or a.model.name != b.model.name:
        return None
    coarse, fine = sorted((a, b), key=lambda result: result.model.bits_per_weight)
    same = coarse.model.bits_per_weight == fine.model.bits_per_weight
    if coarse.is_reference and not same and quantized_in(coarse.reference_files):
        return None
    ours, theirs = (r.quality_by_chunk.get("kld_mean", []) for r in (a, b))
    if len(ours) != len(theirs) or len(ours) < FEWEST:
        return lower(*((r.quality or {}).get("kld_mean") for r in (a, b)))
    apart = np.subtract(theirs, ours)
    reach = half_width(apart)
    return None if reach is None else bool(apart.mean() > reach)


def predicts_better(a: Result, b: Result, unquantized: bool = False) -> bool | None:
    """Whether the model of ``a`` needs measurably fewer bits per byte of the text than ``b``'s.

    The difference of the two ratios is taken over blocks of the text, which two tokenizers have in
    common (Cochran 1977, section 6.3), with Student's interval. ``unquantized`` compares the two
    references instead. None if that cannot be known.
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
    """Whether the interval of ``a`` lies below that of ``b``; None if either has none."""
    if not (a and b and a.ci95 and b.ci95):
        return None
    return a.ci95[1] < b.ci95[0]


def same_text(a: Result, b: Result) -> bool:
    """Whether both were scored on the same text."""
    one, other = ((r.protocol.get("quality") or {}).get("text_sha256") for r in (a, b))
    return one is not None and one == other
