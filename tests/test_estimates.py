"""Intervals hold what they promise, on a machine that drifts, remembers and has outliers."""

from math import exp, log, sqrt

import numpy as np
import pytest
from numpy.typing import NDArray

from minillm_lab.estimates import (
    Estimate,
    holm,
    needed,
    of_rounds,
    quotient,
    together,
)

TRIALS = 6  # the default
SIMULATIONS = 2000
SPREAD = 0.02  # of a trial; intervals scale with it
TRUE = 10.0


def trials(random: np.random.Generator, *shape: int, correlation: float = 0) -> NDArray[np.float64]:
    """Logarithms of trials around 0, with a spread of 1; the last axis is their order in time."""
    x = random.standard_normal(shape)
    for i in range(1, shape[-1]):
        x[..., i] = correlation * x[..., i - 1] + sqrt(1 - correlation**2) * x[..., i]
    return x


def simulated(case: str, variants: int) -> NDArray[np.float64]:
    """The logarithms of every trial of many runs: shape (simulations, variants, trials)."""
    random = np.random.default_rng(1)
    shape = SIMULATIONS, variants, TRIALS
    what, _, how_much = case.partition(" ")
    if what == "correlation":
        return trials(random, *shape, correlation=float(how_much))
    x = trials(random, *shape)
    if what == "drift":  # of two standard deviations, around the run's mean
        return x + np.linspace(-1, 1, TRIALS) * random.choice([-1, 1], (SIMULATIONS, 1, 1))
    outliers = random.integers(TRIALS, size=(SIMULATIONS, variants, 1))
    np.put_along_axis(x, outliers, random.choice([-6.0, 6.0], outliers.shape), axis=2)
    return x


def excludes(estimate: Estimate, value: float) -> bool:
    """Whether the estimate's interval leaves a value out."""
    return estimate.ci95 is not None and not estimate.ci95[0] <= value <= estimate.ci95[1]


@pytest.mark.parametrize("variants", [1, 4])
@pytest.mark.parametrize(
    "case", ["correlation 0", "correlation 0.3", "correlation 0.5", "drift", "outlier"]
)
def test_a_95_percent_interval_covers_the_truth(case: str, variants: int) -> None:
    covered = []
    for run in simulated(case, variants):
        samples = {str(i): (TRUE * np.exp(SPREAD * x)).tolist() for i, x in enumerate(run)}
        covered += [not excludes(e, TRUE) for e in together(samples).values()]
    assert np.mean(covered) >= 0.92


def follow(
    random: np.random.Generator,
    slope: float,
    correlation: float,
    *,
    variants: int = 3,
    varies: float = 0.1,
    apart: float = 0.0,
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Trials that follow something that goes up and down by 10 %, and what it was beside each.

    For the first variant it was ``apart`` from the others.
    """
    x = trials(random, variants, TRIALS, correlation=correlation) * varies
    x[0] += apart
    x -= x.mean()
    y = TRUE * np.exp(slope * x + SPREAD * trials(random, *x.shape, correlation=correlation))
    samples, beside = ({str(i): v.tolist() for i, v in enumerate(z)} for z in (y, x))
    return samples, beside


@pytest.mark.parametrize("slope", [0, 0.2, 1])
@pytest.mark.parametrize("correlation", [0, 0.3, 0.5])
def test_an_interval_covers_the_truth_where_trials_follow_something(
    slope: float, correlation: float
) -> None:
    random = np.random.default_rng(5)
    covered = []
    for _ in range(SIMULATIONS):
        samples, beside = follow(random, slope, correlation)
        covered += [not excludes(e, TRUE) for e in together(samples, beside).values()]
    assert np.mean(covered) >= 0.92


def test_what_trials_follow_does_not_widen_their_interval() -> None:
    random = np.random.default_rng(6)
    errors: dict[str, list[float]] = {"knowing": [], "not knowing": [], "nothing to know": []}
    for _ in range(200):
        samples, beside = follow(random, 1.0, 0)
        steady, _ = follow(random, 0.0, 0)
        for name, found in (
            ("knowing", together(samples, beside)),
            ("not knowing", together(samples)),
            ("nothing to know", together(steady)),
        ):
            errors[name] += [e.error or 0 for e in found.values()]
    median = {name: float(np.median(found)) for name, found in errors.items()}
    assert median["knowing"] < 1.15 * median["nothing to know"] < 0.3 * median["not knowing"]


@pytest.mark.parametrize("correlation", [0, 0.5])
def test_a_variant_that_was_tried_at_another_time_is_covered_too(correlation: float) -> None:
    """The slope is uncertain, and tells much of a variant that is far from the mean."""
    random = np.random.default_rng(8)
    covered = []
    for _ in range(SIMULATIONS):
        samples, beside = follow(random, 0.2, correlation, varies=0.05, apart=0.1)
        covered.append(not excludes(together(samples, beside)["0"], TRUE))
    assert np.mean(covered) >= 0.92


def test_one_outlying_trial_hardly_turns_what_the_others_follow() -> None:
    random = np.random.default_rng(9)
    for _ in range(20):
        samples, beside = follow(random, 1.0, 0)
        before = together(samples, beside)
        samples["0"][random.integers(TRIALS)] *= 3
        after = together(samples, beside)
        for name, spread in (("0", 2.0), ("1", 1.0), ("2", 1.0)):
            assert after[name].value == pytest.approx(before[name].value, rel=spread * SPREAD)


def test_what_hardly_changed_tells_no_slope() -> None:
    samples, beside = follow(np.random.default_rng(10), 1.0, 0)
    little = {name: [0.1 * x for x in of] for name, of in beside.items()}
    assert together(samples, little) == together(samples) != together(samples, beside)


def test_no_slope_is_taken_from_few_trials() -> None:
    samples, beside = follow(np.random.default_rng(7), 1.0, 0, variants=1)
    assert together(samples, beside) == together(samples)


def test_one_outlying_trial_hardly_moves_an_estimate() -> None:
    steady = [0.99 * TRUE, 1.01 * TRUE, TRUE, 0.995 * TRUE, 1.005 * TRUE]
    without, with_ = (together({"": values})[""] for values in (steady, [*steady, 3 * TRUE]))
    assert with_.value == pytest.approx(without.value, rel=0.01)


def test_variants_lend_each_other_their_spread_and_a_wider_one_keeps_its_own() -> None:
    calm, wild = [9.9, 10.1, 10.0], [7.0, 10.0, 14.0]
    alone = {name: together({name: v})[name] for name, v in (("calm", calm), ("wild", wild))}
    both = together({"calm": calm, "wild": wild})

    def reach(estimate: Estimate) -> float:
        assert estimate.ci95
        return estimate.ci95[1] / estimate.value

    assert reach(both["calm"]) > reach(alone["calm"])
    assert both["wild"].error == alone["wild"].error
    assert [e.value for e in both.values()] == [e.value for e in alone.values()]


def test_one_trial_of_several_variants_has_an_interval_by_the_others() -> None:
    found = together({"single": [10.0], "many": [9.9, 10.1, 10.0, 9.95], "none": []})
    assert found.keys() == {"single", "many"}
    assert found["single"].ci95 and found["many"].ci95
    assert found["single"].ci95[1] > found["many"].ci95[1]


def test_one_sample_alone_gives_no_interval_and_no_claim() -> None:
    for estimate in (together({"": [2.0]})[""], of_rounds([[1.0, 2.0, 3.0]])):
        assert (estimate.value, estimate.ci95, estimate.n) == (pytest.approx(2.0), None, 1)
        assert estimate.p() is None and not excludes(estimate, 1.0)


def test_memory_that_was_not_taken_has_a_value_and_no_interval() -> None:
    assert of_rounds([[0.0], [0.0], [0.0]]) == Estimate(0.0, None, 3)


def test_an_interval_and_its_p_value_say_the_same() -> None:
    random = np.random.default_rng(2)
    for shift in np.linspace(0, 0.1, 40):
        values = np.exp(shift + SPREAD * trials(random, TRIALS)).tolist()
        estimate = together({"": values})[""]
        p = estimate.p()
        assert p is not None and (p < 0.05) == excludes(estimate, 1.0)


def estimate(value: float, error: float, freedom: float = 1e9) -> Estimate:
    reach = exp(1.96 * error)
    return Estimate(value, (value / reach, value * reach), 6, error, freedom)


def test_a_quotient_has_the_errors_of_both() -> None:
    found = quotient(estimate(3.0, 0.03), estimate(2.0, 0.04))
    assert found.value == pytest.approx(1.5) and found.error == pytest.approx(0.05)
    assert found.ci95 is not None
    assert log(found.ci95[1] / 1.5) == pytest.approx(1.96 * 0.05, rel=1e-3)
    exact = Estimate(2.0, None, 1, 0.0)
    assert quotient(estimate(3.0, 0.03), exact).error == pytest.approx(0.03)
    assert quotient(estimate(3.0, 0.03), Estimate(2.0, None, 1)).ci95 is None


def test_the_quotient_of_two_variants_covers_the_truth() -> None:
    random = np.random.default_rng(3)
    covered = []
    for a, b in trials(random, 500, 2, TRIALS):
        found = together({"a": (3 * np.exp(SPREAD * a)).tolist(), "b": np.exp(SPREAD * b).tolist()})
        covered.append(not excludes(quotient(found["a"], found["b"]), 3.0))
    assert np.mean(covered) >= 0.92


def test_claims_hold_together_step_by_step() -> None:
    assert holm({"a": 0.01, "b": 0.02, "c": 0.04}) == {"a", "b", "c"}
    assert holm({"a": 0.01, "b": 0.03, "c": 0.04}) == {"a"}  # 0.03 is over a half of 5 %
    assert holm({"a": 0.03, "b": None, "c": None}) == {"a"}  # what was not tested does not count
    assert holm({"a": 0.03, "b": 0.9}) == set() and holm({}) == set()


def test_of_many_true_equalities_one_is_denied_in_one_page_of_twenty() -> None:
    random = np.random.default_rng(4)
    pages = [holm(dict(enumerate(random.random(40)))) for _ in range(1000)]
    assert sum(map(bool, pages)) <= 70


@pytest.mark.parametrize("n", [2, 3, 6, 30])
@pytest.mark.parametrize("others", [0, 20])
def test_the_number_needed_is_more_than_there_is_unless_the_goal_is_reached(
    n: int, others: int
) -> None:
    random = np.random.default_rng(n)
    for goal in (0.001, 0.01, 0.03, 0.1):
        values = np.exp(SPREAD * trials(random, n)).tolist()
        more = np.exp(SPREAD * trials(random, others)).tolist() if others else []
        found = together({"": values, "others": more})[""]
        asked = needed(found, goal)
        assert found.ci95 is not None and asked is not None
        reached = found.ci95[1] / found.value - 1 <= goal
        assert asked == n if reached else asked > n


def test_the_number_needed_reaches_the_goal_if_trials_scatter_as_these_did() -> None:
    values = [10.0, 10.2, 9.8, 10.1]
    asked = needed(together({"": values})[""], 0.02)
    assert asked is not None
    for n, reached in ((asked + 1, True), (asked // 2, False)):
        again = np.exp(
            np.std(np.log(values), ddof=1) * np.sqrt((n - 1) / n) * np.resize([1, -1], n)
        )
        found = together({"": again.tolist()})[""]
        assert found.ci95 is not None and (found.ci95[1] / found.value - 1 <= 0.02) == reached


def test_one_sample_says_nothing_of_how_many_are_needed() -> None:
    assert needed(together({"": [2.0]})[""], 0.02) is None


def test_the_least_ratio_is_where_a_difference_of_its_size_reaches_the_p_value() -> None:
    found = together({"": [2.0, 2.2, 1.9, 2.1]})[""]
    p = found.p()
    assert p is not None and found.least(p) == pytest.approx(found.value)
    assert found.least(p / 10) > found.value > found.least(10 * p) > 1
    assert together({"": [2.0]})[""].least(0.05) == float("inf")
