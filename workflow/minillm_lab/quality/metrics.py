"""The figures of quality over scored tokens, in all and by chunk (docs/quality.md)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minillm_lab.quality import intervals
from minillm_lab.quality.text import EvaluationText
from minillm_lab.records import HurtToken, QualityMetric

WORST = 10  # tokens with the largest divergence that a score names
BLOCK = 2048  # bytes of the text, about as many as a chunk has
BEFORE = 16  # tokens of the text shown before each of them
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Tokens:
    """The values kept for each scored token; every array has the shape (chunks, tokens in one)."""

    kld: Doubles  # nats
    surprise: Doubles  # -log q of the text's own token, nats
    reference_surprise: Doubles  # -log p of the text's own token, nats
    best: NDArray[np.intp]  # the variant's most likely token
    reference_best: NDArray[np.intp]  # the reference's most likely token

    @classmethod
    def room(cls, chunks: int, tokens: int) -> "Tokens":
        """Empty arrays that are filled chunk by chunk."""
        values, ids = np.empty((3, chunks, tokens)), np.empty((2, chunks, tokens), np.intp)
        return cls(values[0], values[1], values[2], ids[0], ids[1])

    @property
    def same(self) -> Doubles:
        """1 if both find the same token most likely, else 0."""
        return np.asarray(self.best == self.reference_best, float)

    @property
    def delta_p(self) -> Doubles:
        """The probability that the text's own token gained."""
        return np.asarray(np.exp(-self.surprise) - np.exp(-self.reference_surprise))


def metrics_of(tokens: Tokens, text: EvaluationText) -> dict[str, QualityMetric]:
    """The figures over all tokens, with their intervals."""
    kld, ours, theirs = tokens.kld, tokens.surprise, tokens.reference_surprise
    delta = tokens.delta_p
    found = {
        "kld_mean": intervals.positive_mean("nat", kld),
        "kld_p99": intervals.quantile("nat", kld, 0.99),
        "kld_p999": intervals.alone("nat", np.quantile(kld, 0.999), kld),
        "kld_max": intervals.alone("nat", kld.max(), kld),
        "same_top": intervals.share("1", tokens.same),
        "perplexity": intervals.exp_mean("1", ours),
        "perplexity_ratio": intervals.exp_mean("1", ours - theirs),
        "delta_p_mean": intervals.mean("1", delta),
        "delta_p_rms": intervals.positive_mean("1", delta**2, power=0.5),
        "delta_p_p01": intervals.quantile("1", delta, 0.01),
        "delta_p_p99": intervals.quantile("1", delta, 0.99),
    }
    if (sizes := scored_bytes(text)) is not None and sizes.any():
        for name, surprise in {"": ours, "_reference": theirs}.items():
            bits = surprise / np.log(2)
            found[f"bits_per_byte{name}"] = intervals.ratio("bit/B", bits, sizes)
    return found


def reply_metrics(agreed: Doubles) -> dict[str, QualityMetric]:
    """The figures of the replies; ``agreed`` is 1 where the variant agrees, (prompts, tokens).

    ``first_divergence_token`` counts the tokens before the first difference, or all if there is
    none; ``divergent_tokens_share`` counts every difference (who-what-benchmark's FDT and SDT). The
    intervals are over prompts.
    """
    return {
        "first_divergence_token": intervals.count("tokens", np.minimum.accumulate(agreed, axis=1)),
        "divergent_tokens_share": intervals.share("1", 1 - agreed),
    }


def chunk_means(tokens: Tokens) -> dict[str, list[float]]:
    """Means by chunk, so that two scores of one text can be compared in pairs."""
    kept = {"kld_mean": tokens.kld, "same_top": tokens.same, "surprise": tokens.surprise}
    return {name: values.mean(axis=1).tolist() for name, values in kept.items()}


def bits_by_block(tokens: Tokens, text: EvaluationText) -> list[tuple[float, float, int]]:
    """For each BLOCK bytes of the text: the variant's bits, the reference's bits, and the bytes.

    They count the scored tokens that begin in the block. Models with different tokenizers have the
    blocks in common. The list is empty if the tokens do not spell the text.
    """
    sizes, begins = scored_bytes(text), scored_begins(text)
    if sizes is None or begins is None:
        return []
    blocks = (begins // BLOCK).ravel()
    ours, theirs, bytes_ = (
        np.bincount(blocks, values.ravel())
        for values in (tokens.surprise / np.log(2), tokens.reference_surprise / np.log(2), sizes)
    )
    return list(zip(ours.tolist(), theirs.tolist(), map(int, bytes_), strict=True))


def scored_begins(text: EvaluationText) -> NDArray[np.int64] | None:
    """The byte of the text at which each scored token begins; None if that is not known."""
    if text.bytes is None:
        return None
    sizes = np.array(text.bytes)
    begins = np.array(text.starts)[:, None] + np.cumsum(sizes, axis=1) - sizes
    return np.asarray(begins[:, text.protocol.score_from + 1 :])


def scored_bytes(text: EvaluationText) -> Doubles | None:
    """The bytes of the scored tokens of each chunk; None if they are not known."""
    if text.bytes is None:
        return None
    return np.array(text.bytes, float)[:, text.protocol.score_from + 1 :]


def section_names(text: EvaluationText) -> NDArray[np.str_] | None:
    """The section that each scored token begins in; None if the text has no sections."""
    begins = scored_begins(text)
    if begins is None or not text.sections:
        return None
    sections = np.searchsorted([s.start for s in text.sections], begins, side="right")
    names = np.array(["", *(s.name for s in text.sections)])
    return np.asarray(names[sections])


def by_section(tokens: Tokens, text: EvaluationText) -> dict[str, QualityMetric]:
    """The mean divergence of each section that has scored tokens; sections of one name are one.

    There are no intervals, since a section is a chunk or two.
    """
    names = section_names(text)
    if names is None:
        return {}
    found = {}
    for name in dict.fromkeys(section.name for section in text.sections):
        if (values := tokens.kld[names == name]).size:
            found[name] = intervals.alone("nat", values.mean(), values)
    return found


def hurt_most(
    tokens: Tokens, text: EvaluationText, detokenize: Callable[[list[int]], str]
) -> list[HurtToken]:
    """The tokens with the largest divergence, the largest first."""
    names, first = section_names(text), text.protocol.score_from + 1
    found = []
    for place in np.argsort(-tokens.kld, axis=None, kind="stable")[:WORST]:
        chunk, token = np.unravel_index(place, tokens.kld.shape)
        at = first + int(token)
        ids = text.chunks[chunk]
        found.append(
            HurtToken(
                kld=float(tokens.kld[chunk, token]),
                section=None if names is None else str(names[chunk, token]) or None,
                before=detokenize(ids[max(0, at - BEFORE) : at]),
                text=detokenize([ids[at]]),
                reference=detokenize([int(tokens.reference_best[chunk, token])]),
                variant=detokenize([int(tokens.best[chunk, token])]),
            )
        )
    return found
