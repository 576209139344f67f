"""The assignment: exact by comparison with every possibility, and within its size."""

import itertools

import numpy as np
import pytest

from minillm_lab.jobs.errors import LabError
from minillm_lab.recipes.assignment import only_of
from minillm_lab.recipes.sensitivity import predicted, to_measure, worth_it
from minillm_lab.recipes.shapes import Choice, GroupLoss
from minillm_lab.recipes.solver import Limit, NoneLeftError, assigned


def groups_with(seed: int, groups: int = 6, types: int = 4) -> list[GroupLoss]:
    random = np.random.default_rng(seed)
    found = []
    for i in range(groups):
        sizes = sorted(random.integers(1_000, 9_000_000, types))
        losses = sorted(10.0 ** random.uniform(-6, 0, types), reverse=True)
        choices = {
            f"T{k}": Choice(bytes=int(sizes[k]), error=losses[k], loss=losses[k], measured=True)
            for k in range(types)
        }
        found.append(
            GroupLoss(role=f"r{i}", layers=[], tensors=[f"t{i}"], weights=1, types=choices)
        )
    return found


@pytest.mark.parametrize("seed", range(20))
def test_no_other_assignment_of_that_size_loses_less(seed: int) -> None:
    groups = groups_with(seed)
    sizes = [[c.bytes for c in g.types.values()] for g in groups]
    least, most = sum(map(min, sizes)), sum(map(max, sizes))
    room = int(least + np.random.default_rng(seed).uniform(0, 1) * (most - least))
    found = assigned(groups, room)
    every = {}
    for types in itertools.product(*(g.types for g in groups)):
        chosen = [g.types[t] for g, t in zip(groups, types, strict=True)]
        if sum(c.bytes for c in chosen) <= room:
            every[types] = sum(c.loss for c in chosen)
    assert every[tuple(found)] == pytest.approx(min(every.values()), rel=1e-6)


@pytest.mark.parametrize("seed", range(10))
def test_no_other_assignment_within_the_limits_loses_less(seed: int) -> None:
    groups, random = groups_with(seed), np.random.default_rng(seed)
    sizes = [[c.bytes for c in g.types.values()] for g in groups]
    room = int(np.mean([sum(map(min, sizes)), sum(map(max, sizes))]))
    limits = []
    for _ in range(2):
        costs = [{t: random.uniform(-0.1, 0.1) for t in g.types} for g in groups]
        limits.append(Limit(costs, 1.0, 0.95))
    every = {}
    for types in itertools.product(*(g.types for g in groups)):
        chosen = [g.types[t] for g, t in zip(groups, types, strict=True)]
        if sum(c.bytes for c in chosen) <= room:
            every[types] = sum(c.loss for c in chosen), max(o.sum(types) / o.most for o in limits)
    found = tuple(assigned(groups, room, 1.0, limits))
    in_time = [loss for loss, factor in every.values() if factor <= 1]
    assert every[found][0] == pytest.approx(min(in_time), rel=1e-6)
    least = min(factor for _, factor in every.values())
    tight = [Limit(o.costs, 1.0, 0.5 * least * o.most) for o in limits]  # none is so fast
    nearest = tuple(assigned(groups, room, 1.0, tight))
    assert every[nearest][1] == pytest.approx(least)


@pytest.mark.parametrize("most", [-1.0, 0.0, 1e-12, 0.95, 1e25])
def test_assignments_that_were_slow_are_not_taken_again_whatever_the_limit(most: float) -> None:
    groups, random = groups_with(1, groups=3, types=3), np.random.default_rng(1)
    costs = [{t: random.uniform(-0.3, -0.1) for t in g.types} for g in groups]
    limit, slow = Limit(costs, 1.0, most), list[tuple[str, ...]]()
    for _ in range(27):
        slow.append(tuple(assigned(groups, 1 << 40, 1.0, [limit], (), slow)))
    assert len({*slow}) == 27
    if most < 0.1:  # where none is within the limit, the next is the one that is nearest
        sums = [limit.sum(types) for types in slow]
        assert sums == pytest.approx(sorted(sums), abs=2e-6)
    with pytest.raises(NoneLeftError):
        assigned(groups, 1 << 40, 1.0, [limit], (), slow)


def test_a_fixed_limit_is_not_raised_with_the_others() -> None:
    groups = groups_with(2, groups=3, types=3)
    faster = [{t: -0.1 * k for k, t in enumerate(g.types)} for g in groups]
    slower = [{t: 0.1 * k for k, t in enumerate(g.types)} for g in groups]
    fixed, out_of_reach = Limit(slower, 1.0, 1.3), Limit(faster, 1.0, 0.5)
    types = assigned(groups, 1 << 40, 1.0, [out_of_reach], [fixed])
    assert fixed.sum(types) <= 1.3 + 1e-6
    assert out_of_reach.sum(types) == pytest.approx(0.7)


def test_an_assignment_fits_to_the_byte() -> None:
    groups = groups_with(0)
    least = sum(min(c.bytes for c in g.types.values()) for g in groups)
    assert assigned(groups, least) == [min(g.types, key=lambda t: g.types[t].bytes) for g in groups]


def test_a_type_that_a_group_cannot_take_is_refused_by_name() -> None:
    with pytest.raises(LabError, match="none of Q9_9 is a choice for r0; it has T0, T1"):
        only_of(groups_with(0)[0], ["Q9_9"])


def test_what_is_larger_and_worse_is_not_measured() -> None:
    errors = {"Q8_0": 0.01, "Q5_1": 2.0, "Q5_K": 1.0, "Q4_K": 4.0, "Q4_0": 9.0}
    sizes = {"Q8_0": 34, "Q5_1": 24, "Q5_K": 22, "Q4_K": 18, "Q4_0": 18}
    assert worth_it(errors, sizes) == ["Q8_0", "Q5_K", "Q4_K"]
    assert to_measure({"Q8_0": 0.01, "Q5_K": 1.0, "Q4_K": 4.0}) == ["Q4_K", "Q5_K"]
    assert to_measure({"Q8_0": 0.01}) == ["Q8_0"]


def test_losses_between_measured_ones_follow_a_power_law_through_them() -> None:
    law = {e: 3 * e**0.8 for e in (0.01, 1.0)}
    assert predicted(law, 0.1) == pytest.approx(3 * 0.1**0.8)
    assert predicted(law, 0.01) == pytest.approx(law[0.01])
    assert predicted(law, 0.001) == pytest.approx(law[0.01] / 10)  # beyond: in proportion
    assert predicted(law, 10.0) == pytest.approx(30)
    assert predicted({1.0: 2.0}, 0.5) == pytest.approx(1.0)
