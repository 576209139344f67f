"""Whether 95 % intervals cover, by simulation with a known truth."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from minillm_lab.quality.intervals import (
    FEWEST,
    count,
    exp_mean,
    mcnemar,
    positive_mean,
    proportion,
    quantile,
    ratio,
    share,
)
from minillm_lab.records import QualityMetric

Doubles = NDArray[np.float64]
TOKENS, TRIES = 479, 500
# The default model against float32, ten chunks, exact: the standard deviation of the divergence's
# logarithm within a chunk, and of the chunks' centres beyond what that makes of them.
SPREADS = {"q4_k_m": (1.27, 0.28), "q8_0": (1.23, 0.35)}


def covered(
    figure: Callable[[Doubles], QualityMetric], draw: Callable[[], Doubles], truth: float
) -> float:
    """The share of draws whose interval holds the truth."""
    found = [figure(draw()).ci95 for _ in range(TRIES)]
    assert all(found)
    return sum(ci is not None and ci[0] <= truth <= ci[1] for ci in found) / TRIES


@pytest.mark.parametrize("chunks", [FEWEST, 5, 10])
@pytest.mark.parametrize("variant", SPREADS)
def test_intervals_over_skewed_divergences_cover(variant: str, chunks: int) -> None:
    random = np.random.default_rng(chunks)
    within, between = SPREADS[variant]

    def draw() -> Doubles:
        centres = random.normal(0, between, (chunks, 1))
        return np.exp(centres + random.normal(0, within, (chunks, TOKENS)))

    spread = np.hypot(within, between)
    mean, p99 = np.exp(spread**2 / 2), np.exp(2.3263 * spread)
    assert covered(lambda x: positive_mean("nat", x), draw, mean) >= 0.9
    assert covered(lambda x: quantile("nat", x, 0.99), draw, p99) >= 0.9
    assert covered(lambda x: exp_mean("1", np.log(x)), draw, 1.0) >= 0.9


@pytest.mark.parametrize("chunks", [FEWEST, 10])
@pytest.mark.parametrize(("truth", "between"), [(0.96, 0.002), (0.85, 0.01), (0.999, 0.001)])
def test_intervals_of_shares_of_tokens_cover(truth: float, between: float, chunks: int) -> None:
    random = np.random.default_rng(chunks)
    weight = 1 / between - 1

    def draw() -> Doubles:
        of_chunk = random.beta(truth * weight, (1 - truth) * weight, (chunks, 1))
        return (random.random((chunks, TOKENS)) < of_chunk).astype(float)

    assert covered(lambda x: share("1", x), draw, truth) >= 0.9


@pytest.mark.parametrize("hazard", [0.0005, 0.005, 0.03, 0.3])
def test_the_first_divergent_token_of_few_prompts_is_covered(hazard: float) -> None:
    random = np.random.default_rng(6)

    def draw(prompts: int = 8, length: int = 64) -> Doubles:
        each = hazard * np.exp(random.normal(0, 1.0, (prompts, 1)))
        agreed = (random.random((prompts, length)) > each).astype(float)
        return np.asarray(np.minimum.accumulate(agreed, axis=1))

    truth = float(draw(100_000).sum(axis=1).mean())
    assert covered(lambda x: count("tokens", x), draw, truth) >= 0.9


def test_the_percentile_bootstrap_of_few_chunks_does_not_cover() -> None:
    """So that the tests above can tell: what these intervals took the place of."""
    random = np.random.default_rng(3)

    def bootstrap(tokens: Doubles) -> QualityMetric:
        means = tokens.mean(axis=1)
        drawn = means[random.integers(0, len(means), (300, len(means)))].mean(axis=1)
        low, high = (float(q) for q in np.quantile(drawn, [0.025, 0.975]))
        return QualityMetric(value=float(means.mean()), unit="nat", ci95=(low, high), n=1)

    def draw() -> Doubles:
        return np.exp(random.normal(0, 0.3, (FEWEST, 1)) + random.normal(0, 1, (FEWEST, TOKENS)))

    assert covered(bootstrap, draw, np.exp((0.3**2 + 1) / 2)) < 0.8


def test_a_ratio_of_sums_covers_where_the_denominators_vary() -> None:
    random = np.random.default_rng(4)
    sizes = np.array([1.0, 2.0, 4.0, 8.0])

    def draw() -> Doubles:
        below = random.choice(sizes, (10, TOKENS))
        above = below * np.exp(random.normal(0, 0.2, (10, 1)) + random.normal(0, 1, below.shape))
        return np.stack([above, below])

    truth = np.exp((0.2**2 + 1) / 2)
    assert covered(lambda x: ratio("bit", x[0], x[1]), draw, float(truth)) >= 0.9


def test_what_no_number_holds_is_null() -> None:
    surprises = np.full((10, 9), 1e4)
    assert exp_mean("1", surprises).value is None
    wide = positive_mean("nat", np.array([[1e-300] * 9, [1e-300] * 9, [1.0] * 9]))
    assert wide.ci95 and np.isfinite(wide.ci95).all()


def test_shares_of_questions_cover_wherever_the_truth_lies() -> None:
    for n in (25, 150):
        intervals = np.array([proportion(count, n).ci95 for count in range(n + 1)])
        assert (intervals[:, 0] <= np.arange(n + 1) / n).all()
        random = np.random.default_rng(n)
        for truth in (0.0012, 0.007, 0.02, 0.1, 0.5, 0.93, 0.993):
            counts = random.binomial(n, truth, 4000)
            low, high = intervals[counts].T
            assert ((low <= truth) & (truth <= high)).mean() >= 0.9


def test_mcnemar_is_the_exact_test_of_a_fair_coin() -> None:
    assert mcnemar(0, 0) == mcnemar(3, 3) == 1
    assert mcnemar(6, 0) == mcnemar(0, 6) == pytest.approx(2 * 0.5**6)
    assert mcnemar(1, 5) == pytest.approx(2 * 7 / 64)
