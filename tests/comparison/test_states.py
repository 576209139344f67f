"""The states of a machine: found where there are several, and not where there is one."""

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from minillm_lab.comparison.states import find_states
from minillm_lab.records import Reading

FAST = np.array([1.7e11, 3.2e10])  # as on a machine that a host moved about: compute, memory
WIDE = np.array([1.33e11, 5.0e10])
SIMULATIONS = 100
NOISE = {
    "normal, 2 %": lambda random, shape: 0.02 * random.standard_normal(shape),
    "normal, 4 %": lambda random, shape: 0.04 * random.standard_normal(shape),
    "heavy tails": lambda random, shape: 0.02 * random.standard_t(3, shape),
    "drift of 20 %": lambda random, shape: (
        0.02 * random.standard_normal(shape) + np.linspace(0, np.log(1.2), shape[0])[:, None]
    ),
}


def readings(values: NDArray[np.float64]) -> list[Reading]:
    return [Reading(compute_flops=c, memory_bytes_per_second=m) for c, m in values.tolist()]


@pytest.mark.parametrize("count", [30, 60, 150])
@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE.keys())
def test_one_state_is_found_as_one(noise, count: int) -> None:  # type: ignore[no-untyped-def]
    random = np.random.default_rng(count)
    one = 0
    for _ in range(SIMULATIONS):
        states, _ = find_states(readings(FAST * np.exp(noise(random, (count, 2)))))
        one += len(states) == 1
    assert one >= 0.99 * SIMULATIONS


def wandering(random: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Levels that follow the one before (correlation 0.9), with deviations of 12 and 10 %."""
    steps = random.standard_normal((count, 2)) * [0.12, 0.10]
    for i in range(1, count):
        steps[i] = 0.9 * steps[i - 1] + np.sqrt(1 - 0.9**2) * steps[i]
    return steps


WIDE_NOISE = {
    "normal, 10 and 8 %": (
        lambda random, count: random.standard_normal((count, 2)) * [0.1, 0.08],
        99,
    ),
    "even, over 50 and 30 %": (lambda random, count: random.random((count, 2)) * [0.5, 0.3], 90),
    "wandering": (wandering, 95),
}


@pytest.mark.parametrize(("noise", "least"), WIDE_NOISE.values(), ids=WIDE_NOISE.keys())
def test_a_wide_state_without_a_gap_stays_one(noise, least: int) -> None:  # type: ignore[no-untyped-def]
    random = np.random.default_rng(4)
    found = [find_states(readings(FAST * np.exp(noise(random, 170))))[0] for _ in range(100)]
    assert sum(len(states) == 1 for states in found) >= least


def test_two_states_that_a_few_readings_join_are_two() -> None:
    """As on a machine whose memory read 29 to 35 GB/s and 42 to 52, and in nine of 170 between."""
    random, two = np.random.default_rng(5), 0
    for _ in range(SIMULATIONS):
        memory = [0.06 * random.standard_normal(81), 0.3 + 0.06 * random.standard_normal(80)]
        memory += [0.3 * random.random(9)]
        logs = np.c_[0.08 * random.standard_normal(170), np.concatenate(memory)]
        states, labels = find_states(readings(FAST * np.exp(logs)))
        two += len(states) == 2
        if len(states) == 2:
            ends = sorted(state.memory_bytes_per_second / FAST[1] for state in states)
            assert ends == pytest.approx([1.0, np.exp(0.3)], rel=0.04)
            assert Counter(labels)[None] <= 17
    assert two >= 0.85 * SIMULATIONS


@pytest.mark.parametrize("share", [0.2, 0.5, 0.7])
def test_two_states_are_found_and_each_reading_is_in_its_own(share: float) -> None:
    random = np.random.default_rng(1)
    for _ in range(SIMULATIONS):
        truth = random.permutation(np.arange(60) >= share * 60)  # True: FAST
        noise = np.exp(0.02 * random.standard_normal((60, 2)))
        states, labels = find_states(readings(np.where(truth[:, None], FAST, WIDE) * noise))
        assert len(states) == 2 and states[0].share >= states[1].share
        for number, state in enumerate(states):
            fast = state.compute_flops > 1.5e11
            level = FAST if fast else WIDE
            found = np.array([state.compute_flops, state.memory_bytes_per_second])
            assert found == pytest.approx(level, rel=0.02)
            own = [bool(truth[i]) for i, label in enumerate(labels) if label == number]
            assert own and set(own) == {fast}
            assert state.share == pytest.approx(len(own) / 60)
        assert Counter(labels)[None] <= 3


def test_a_reading_between_two_states_is_in_none() -> None:
    random = np.random.default_rng(2)
    values = np.repeat([FAST, WIDE], 20, axis=0) * np.exp(0.01 * random.standard_normal((40, 2)))
    between = np.sqrt(FAST * WIDE)[None]
    states, labels = find_states(readings(np.vstack([values, between])))
    assert len(states) == 2 and labels[-1] is None
    assert sorted(Counter(labels[:-1]).values()) == [20, 20]


def test_what_differs_in_one_yardstick_alone_is_another_state() -> None:
    values = np.repeat([FAST, FAST * [1, 1.5], FAST * [0.7, 1]], 10, axis=0)
    assert len(find_states(readings(values))[0]) == 3


def test_the_most_frequent_state_comes_first_whatever_the_order() -> None:
    values = np.repeat([WIDE, FAST], [6, 12], axis=0)
    for order in (values, values[::-1]):
        states, labels = find_states(readings(order))
        assert [round(state.share * 18) for state in states] == [12, 6]
        assert states[0].compute_flops == pytest.approx(FAST[0])
        assert Counter(labels) == {0: 12, 1: 6}


def test_no_readings_have_no_state() -> None:
    assert find_states([]) == ([], [])


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_few_readings_that_agree_are_one_state(count: int) -> None:
    states, labels = find_states(readings(np.repeat([FAST], count, axis=0)))
    assert [state.share for state in states] == [1.0] and labels == [0] * count


def test_a_few_readings_that_differ_are_no_states_of_their_own() -> None:
    """Too few to tell states from chance: what is common is the state, the rest is in none."""
    states, labels = find_states(readings(np.vstack([np.repeat([FAST], 6, axis=0), WIDE, WIDE])))
    assert len(states) == 1 and labels == [0] * 6 + [None] * 2


@pytest.mark.parametrize("pairs", [[FAST, WIDE], [FAST, FAST, WIDE, WIDE]])
def test_two_states_too_few_to_tell_are_not_averaged(pairs: list[NDArray[np.float64]]) -> None:
    states, _ = find_states(readings(np.array(pairs)))
    for state in states:
        assert not 1.4e11 < state.compute_flops < 1.6e11
