"""The loop that makes files, times them and solves again, on made-up machines."""

from collections.abc import Callable

import numpy as np
import pytest

from minillm_lab.jobs.errors import LabError
from minillm_lab.recipe import JUST, Candidate
from minillm_lab.recipes.candidates import ANY_SIZE, POWERS, TRIES, Baker, Tasting
from minillm_lab.recipes.shapes import Choice, GroupLoss
from minillm_lab.recipes.solver import Limit

TYPES = ("Q8_0", "Q6_K", "Q5_K", "Q4_K")
SPEEDS = {  # over the unquantized model's time, where a whole model is of a type
    "decode": (0.60, 0.52, 0.47, 0.38),
    "prefill": (0.7, 1.5, 0.9, 0.5),
}
Types = tuple[str, ...]


def machine(seed: int, error: float) -> "MadeUp":
    """A search as fast as Q4_K, whose costs of types are off by ``error``."""
    random = np.random.default_rng(seed)
    groups = []
    for i in range(7):
        weights, loss = int(random.integers(1, 30)) << 15, 10 ** random.uniform(-4, -1)
        choices = {
            t: Choice(bytes=weights * bits // 8, error=loss / 4**k, loss=loss / 4**k, measured=True)
            for k, (t, bits) in enumerate(zip(reversed(TYPES), (4, 5, 6, 8), strict=True))
        }
        groups.append(
            GroupLoss(role=f"r{i}", layers=[], tensors=[f"t{i}"], weights=weights, types=choices)
        )
    whole = sum(group.weights for group in groups)
    true = {
        kind: [
            {t: (s - 1) * g.weights / whole for t, s in zip(TYPES, speeds, strict=True)}
            for g in groups
        ]
        for kind, speeds in SPEEDS.items()
    }
    most = {kind: 1 + sum(cost["Q4_K"] for cost in costs) for kind, costs in true.items()}
    limits = {}
    for kind, costs in true.items():
        off = [dict(zip(TYPES, random.normal(0, error, 4), strict=True)) for _ in range(3)]
        measured = [
            {t: c + off[i % 3][t] * groups[i].weights / whole * 3 for t, c in cost.items()}
            for i, cost in enumerate(costs)
        ]
        limits[kind] = Limit(measured, 1.0, most[kind])

    def share(kind: str, types: Types) -> float:
        return Limit(true[kind], 1.0, most[kind]).sum(types) / most[kind]

    return MadeUp(groups, limits, share)


class OfGroups(Baker):
    """A file is as large as its groups."""

    def __init__(self, groups: list[GroupLoss]) -> None:
        self.found = type("Found", (), {"groups": groups})()
        self.smallest = tuple(min(g.types, key=lambda t: g.types[t].bytes) for g in groups)
        self.bytes = self.of_groups


class MadeUp(Tasting):
    """A search that computes what a file takes and loses, and makes none."""

    def __init__(
        self,
        groups: list[GroupLoss],
        limits: dict[str, Limit],
        share: Callable[[str, Types], float],
    ) -> None:
        self.baker, self.groups, self.limits, self.share = OfGroups(groups), groups, limits, share
        self.size = self.room = ANY_SIZE
        self.sized, self.bound = False, type("Bound", (), {"longer": "a slower variant"})()
        self.taken, self.losses = {}, {}

    def taste(self, assignment: Types, power: float) -> Candidate:
        loss = sum(g.types[t].loss for g, t in zip(self.groups, assignment, strict=True))
        self.losses[assignment] = np.full(4, loss)
        times = {kind: self.share(kind, assignment) for kind in self.limits}
        return Candidate(power=power, bytes=1, predicted=loss, measured=loss, times=times)


@pytest.mark.parametrize("error", [0.0, 0.01, 0.05])
def test_a_file_that_is_as_fast_is_found_or_every_try_was_used(error: float) -> None:
    found = 0
    for seed in range(25):
        tasting = machine(seed, error)
        tasting.search()
        try:
            types, _ = tasting.best()
        except LabError:
            assert len(tasting.taken) == TRIES + len(POWERS) - 1
        else:
            found += 1
            assert all(tasting.share(kind, types) <= JUST for kind in SPEEDS)
    assert found >= (25 if error == 0 else 12)
