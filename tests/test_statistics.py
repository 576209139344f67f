"""Intervals hold what they promise, and pairing cancels what the machine does to all variants."""

import numpy as np
import pytest

from minillm_lab.statistics import median, paired_ratio


def simulated(random: np.random.Generator, rounds: int, true: float) -> list[list[float]]:
    """Samples with a spread between rounds and a smaller one within them."""
    return [
        [true * level * random.lognormal(0, 0.01) for _ in range(3)]
        for level in random.lognormal(0, 0.03, rounds)
    ]


@pytest.mark.parametrize("rounds", [3, 5, 10])
def test_a_95_percent_interval_covers_at_least_90_percent(rounds: int) -> None:
    random = np.random.default_rng(1)
    estimates = [median(simulated(random, rounds, 10.0)) for _ in range(300)]
    covered = [not e.excludes(10.0) for e in estimates]
    assert np.mean(covered) > 0.90


@pytest.mark.parametrize("rounds", [3, 5, 10])
def test_equal_variants_tie_and_different_ones_do_not(rounds: int) -> None:
    random = np.random.default_rng(2)
    pairs = [(simulated(random, rounds, 1.0), simulated(random, rounds, 1.0)) for _ in range(200)]
    different = [paired_ratio(a, b).excludes(1.0) for a, b in pairs]
    assert np.mean(different) < 0.10
    told_apart = [paired_ratio(simulated(random, rounds, 1.5), b).excludes(1.0) for _, b in pairs]
    assert np.mean(told_apart) > 0.90


def test_pairing_cancels_drift() -> None:
    drift = [1.0, 0.7, 1.3, 0.8, 1.1]
    fast = [[20 * d, 20.2 * d, 19.8 * d] for d in drift]
    slow = [[10 * d, 10.1 * d, 9.9 * d] for d in drift]
    estimate = paired_ratio(fast, slow)
    assert estimate.value == pytest.approx(2.0)
    assert estimate.ci95 is not None
    assert 1.9 < estimate.ci95[0] < 2.0 < estimate.ci95[1] < 2.1


def test_one_round_gives_no_interval() -> None:
    estimate = median([[1.0, 2.0, 3.0]])
    assert (estimate.value, estimate.ci95, estimate.n) == (2.0, None, 3)


def test_unequal_rounds_are_not_paired() -> None:
    with pytest.raises(ValueError, match="2 rounds cannot be paired with 1"):
        paired_ratio([[1.0], [1.0]], [[1.0]])
