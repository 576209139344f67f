"""Quality in long contexts: the same tokens after more and more of one text, and by position.

All passages end with the same tokens, so a figure differs between two contexts by nothing but the
tokens before. By position, the tokens differ too. Intervals are over BLOCKS blocks of neighbouring
tokens, with all that ``intervals`` says of chunks.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from minillm_lab.quality import intervals
from minillm_lab.quality.metrics import Tokens
from minillm_lab.quality.text import EvaluationText
from minillm_lab.records import QualityMetric

BLOCKS = 8
NOISE = 1e-7  # nats; a smaller divergence may be that of float32 arithmetic alone
FIRST = 512  # positions of the first part; each part after it is as long as all before


def in_blocks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A passage's values in BLOCKS rows; what is left over, at its start, is dropped."""
    flat = values.ravel()
    return flat[len(flat) % BLOCKS :].reshape(BLOCKS, -1)


def context_metrics(long: list[Tokens], text: EvaluationText) -> dict[str, QualityMetric]:
    """The figures of the text's end in each long context: ``kld_mean_at_4096`` and others.

    ``kld_growth_at_4096`` is the divergence over that of the same tokens in the shortest context,
    where that is more than NOISE.
    """
    found: dict[str, QualityMetric] = {}
    if not long:
        return found
    end, contexts = text.protocol.end, text.protocol.long_contexts
    for context, tokens in zip(contexts, long, strict=True):
        kld, same, surprise = (
            in_blocks(values[0, -end:]) for values in (tokens.kld, tokens.same, tokens.surprise)
        )
        found[f"kld_mean_at_{context}"] = intervals.positive_mean("nat", kld)
        found[f"same_top_at_{context}"] = intervals.share("1", same)
        found[f"perplexity_at_{context}"] = intervals.exp_mean("1", surprise)
        if context == contexts[0]:
            shortest = kld
        elif shortest.mean() > NOISE:
            found[f"kld_growth_at_{context}"] = intervals.ratio("1", kld, shortest)
    return found


def by_position(long: list[Tokens], text: EvaluationText) -> dict[str, QualityMetric]:
    """The mean divergence in parts of the longest passage, by their first and last position."""
    if not long:
        return {}
    kld, (ids, first) = long[-1].kld[0], text.passages[-1]
    starts = [0, FIRST]
    while starts[-1] < len(ids):
        starts.append(2 * starts[-1])
    found = {}
    for start, stop in pairwise(starts):
        part = kld[max(start - first, 0) : max(stop - first, 0)]
        if len(part) >= BLOCKS:
            last = min(stop, len(ids) - 1) - 1
            found[f"{start}–{last}"] = intervals.positive_mean("nat", in_blocks(part))
    return found
