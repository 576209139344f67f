"""The KL divergence from a compact reference, estimated without bias, in blocks of rows.

For each scored token the reference holds its top log-probabilities exactly and a systematic sample
of the rest, drawn in proportion to its own probabilities (Madow 1949). With p the reference, q the
variant and d = log p − log q, the divergence is a sum of terms that are never negative,

    KL(p‖q) = Σ p·d = Σ p·(d − 1 + exp(−d)),

since Σ p·exp(−d) = Σ q = 1 = Σ p. It is estimated as

    Σ_top p·(d − 1 + exp(−d)) + P_tail · mean over the sample (d − 1 + exp(−d)).

The mean replaces the expectation over p in the tail, so the estimate is unbiased. In one sample it
is not exact: the tail's term takes away what Σ_top (q − p) adds in expectation only. But every term
is of second order in d, so if q is near p the estimate's error is in proportion to the divergence.
Without −1 + exp(−d) the error is of first order and hides the divergence of a near-exact variant.

If q is far from p, exp(−d) = q / p is the noisiest part: a token that is unlikely under p and
likely under q is seldom drawn. The mean of exp(−d) over the tail is known, Q_tail / P_tail with
Q_tail = 1 − Σ_top q, so it serves as a control variate. The weight that leaves it in,
s² / (exp(s²) − 1), is the best if d is normal with variance s². s² is taken from the less likely
half of the top: the variance of d there, and its distance from log P_tail − log Q_tail. It takes
nothing from the sample, so the estimate stays unbiased.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

TOP = 256  # log-probabilities kept exactly
TAIL = 128  # tokens sampled from the rest
TINY = 1e-6  # probability; float32 sums are no more exact
BLOCK_BYTES = 4 << 20  # logits worked on at once, few enough for the processor's cache


@dataclass(frozen=True)
class Compact:
    """The reference's distribution at each of n tokens, in compact form."""

    top_ids: NDArray[np.unsignedinteger]  # (n, TOP), most likely first
    top: Floats  # (n, TOP) log-probabilities
    tail_ids: NDArray[np.unsignedinteger]  # (n, TAIL), or (n, 0) if the top is everything
    tail: Floats  # (n, TAIL) log-probabilities
    tail_mass: Floats  # (n,) probability of everything but the top


def blocks(rows: int, vocabulary: int) -> Iterator[slice]:
    """Slices of rows that fit BLOCK_BYTES."""
    step = max(1, BLOCK_BYTES // (4 * vocabulary))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def log_normalizer(logits: Floats) -> Doubles:
    """The log-sum-exp of each row of (n, vocabulary) logits; not finite if they are not."""
    found = np.empty(len(logits))
    buffer = np.empty((0, 0), np.float32)
    for block in blocks(*logits.shape):
        rows = logits[block]
        if buffer.shape != rows.shape:
            buffer = np.empty_like(rows)
        highest = rows.max(axis=1, keepdims=True)
        np.subtract(rows, highest, out=buffer)
        np.exp(buffer, out=buffer)
        found[block] = highest[:, 0] + np.log(buffer.sum(axis=1).astype(np.float64))
    return found


def compress(
    logits: Floats, normalizers: Doubles, random: np.random.Generator, top: int, tail: int
) -> Compact:
    """The top and a sample of the tail of each row of (n, vocabulary) logits."""
    n, vocabulary = logits.shape
    top = min(top, vocabulary)
    tail = tail if top < vocabulary else 0
    kind = np.uint16 if vocabulary <= 1 << 16 else np.uint32
    top_ids, tail_ids = np.empty((n, top), kind), np.empty((n, tail), kind)
    mass = np.zeros(n, np.float32)
    for block in blocks(n, vocabulary):
        rows = logits[block]
        ids = np.argpartition(rows, vocabulary - top, axis=1)[:, vocabulary - top :]
        order = np.argsort(-np.take_along_axis(rows, ids, 1), axis=1, kind="stable")
        top_ids[block] = ids = np.take_along_axis(ids, order, 1)
        if tail:
            p = np.exp(rows - normalizers[block, None].astype(np.float32))
            np.put_along_axis(p, ids, 0, 1)
            tail_ids[block], mass[block] = sample(p, tail, random)

    def log_p(ids: NDArray[np.unsignedinteger]) -> Floats:
        chosen = np.take_along_axis(logits, ids.astype(np.intp), 1) - normalizers[:, None]
        return chosen.astype(np.float32)

    return Compact(top_ids, log_p(top_ids), tail_ids, log_p(tail_ids), mass)


def sample(p: Floats, size: int, random: np.random.Generator) -> tuple[NDArray[np.intp], Doubles]:
    """Systematic samples of each row of weights, shape (rows, size), and each row's sum.

    Every id is drawn size × p / sum times on average, at evenly spaced points of the cumulated
    weights after one random start.
    """
    cumulated = np.cumsum(p, axis=1, dtype=np.float64)
    sums = cumulated[:, -1]
    points = (random.random((len(p), 1)) + np.arange(size)) / size * sums[:, None]
    points = np.minimum(points, np.nextafter(sums, 0)[:, None])
    found = [c.searchsorted(x, side="right") for c, x in zip(cumulated, points, strict=True)]
    return np.minimum(np.array(found), p.shape[1] - 1), sums


def divergence(reference: Compact, logits: Floats, normalizers: Doubles) -> Doubles:
    """The estimated KL divergence from the reference at each row, in nats, shape (n,)."""

    def difference(ids: NDArray[np.unsignedinteger], log_p: Floats) -> Doubles:
        return apart(log_p, np.take_along_axis(logits, ids.astype(np.intp), 1), normalizers)

    p, d = np.exp(reference.top.astype(np.float64)), difference(reference.top_ids, reference.top)
    found = (p * term(d)).sum(axis=1)
    if reference.tail_ids.shape[1]:
        least = d[:, d.shape[1] // 2 :]  # the less likely half of the top is most like the tail
        missing = 1 - (p * np.exp(-d)).sum(axis=1)  # the variant's probability of the tail
        shift = np.log((reference.tail_mass + TINY) / (np.maximum(missing, 0) + TINY))
        spread = least.var(axis=1) + (shift - least.mean(axis=1)) ** 2
        spread = np.clip(spread, 1e-12, 50)
        weight = spread / np.expm1(spread)
        d = difference(reference.tail_ids, reference.tail)
        tail = reference.tail_mass * term(d).mean(axis=1)
        tail += (1 - weight) * (missing - reference.tail_mass * np.exp(-d).mean(axis=1))
        found += np.maximum(tail, 0)
    return np.asarray(found)


def apart(log_p: Floats, logits: Floats, normalizers: Doubles) -> Doubles:
    """d = log p − log q, bounded below so that exp(−d) is a number."""
    d: Doubles = log_p.astype(np.float64) - (logits - normalizers[:, None])
    return np.maximum(d, -700)


def term(d: Doubles) -> Doubles:
    """d − 1 + exp(−d), never negative."""
    return np.maximum(d + np.expm1(-d), 0)  # rounding of expm1 alone can bring it below


def exact_divergence(log_p: Floats, logits: Floats, normalizers: Doubles) -> Doubles:
    """The KL divergence from whole vectors of log-probabilities, in nats, shape (n,)."""
    found = np.empty(len(logits))
    for block in blocks(*logits.shape):
        p = np.exp(log_p[block].astype(np.float64))
        d = apart(log_p[block], logits[block], normalizers[block])
        found[block] = (p * term(d)).sum(axis=1)
    return found
