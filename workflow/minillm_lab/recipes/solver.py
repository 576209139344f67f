"""The types of groups of tensors that lose least within limits: an integer program."""

import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import lil_array

from minillm_lab.jobs.errors import LabError
from minillm_lab.recipes.shapes import GroupLoss

TOLERANCE = 1e-6  # the solver's, of its constraints
SCALE = 1e4  # of the worst sum of losses, so that the solver's tolerance is far below differences


class NoneLeftError(LabError):
    """There is no assignment that may be taken."""


@dataclass(frozen=True)
class Limit:
    """A sum of at most ``most``: a ``base``, and what each group adds by its type."""

    costs: Sequence[Mapping[str, float]]
    base: float
    most: float

    def sum(self, types: Sequence[str]) -> float:
        """The sum for types of the groups."""
        return self.base + sum(by_type[t] for by_type, t in zip(self.costs, types, strict=True))


def assigned(
    groups: Sequence[GroupLoss],
    room: int,
    power: float = 1,
    limits: Sequence[Limit] = (),
    fixed: Sequence[Limit] = (),
    but: Collection[Sequence[str]] = (),
) -> list[str]:
    """The type of each group that makes the sum of losses to a power least in ``room`` bytes.

    The groups must fit into it in their smallest types. Where none that fit are within the limits,
    all limits are raised by the least that some are within; those in ``fixed`` are not. The
    assignments in ``but`` are not taken. Raises NoneLeftError.
    """
    choices = [(i, t, c) for i, group in enumerate(groups) for t, c in group.types.items()]
    losses = np.array([choice.loss**power for _, _, choice in choices])
    worst = sum(max(c.loss for c in group.types.values()) ** power for group in groups)
    of_group = lil_array((len(groups), len(choices) + 1))  # the last column raises the limits
    for column, (i, _, _) in enumerate(choices):
        of_group[i, column] = 1
    sizes = np.array([[*(choice.bytes for _, _, choice in choices), 0]]) / 1e6
    taken = np.array([[*(types[i] == t for i, t, _ in choices), 0] for types in but], float)

    def within(limit: Limit, raised: float) -> LinearConstraint:
        costs = [*(limit.costs[i][t] for i, t, _ in choices), -raised]
        return LinearConstraint(np.array([costs]), ub=limit.most - limit.base)

    constraints = [
        LinearConstraint(of_group.tocsr(), 1, 1),
        LinearConstraint(sizes, ub=room / 1e6),
        *(within(limit, 1) for limit in limits),
        *(within(limit, 0) for limit in fixed),
        *([LinearConstraint(taken, ub=len(groups) - 1)] if but else []),
    ]

    def solved(objective: NDArray[np.float64], raised: float) -> Any:
        """The choices that make the objective least, with limits raised by at most so much."""
        low, high = np.zeros(len(choices) + 1), np.ones(len(choices) + 1)
        high[-1] = raised
        with silent():
            return milp(
                objective,
                integrality=np.append(np.ones(len(choices)), 0),
                bounds=Bounds(low, high),
                constraints=constraints,
                options={"mip_rel_gap": 0, "time_limit": 60},
            ).x

    def typed(found: NDArray[np.float64]) -> list[str]:
        taken = {i: t for (i, t, _), x in zip(choices, found, strict=False) if x > 0.5}
        return [taken[i] for i in range(len(groups))]

    loss = np.append(losses * (SCALE / worst if worst else 1), 0)
    found = solved(loss, 0)
    if found is None and limits:
        found = solved(np.append(np.zeros(len(choices)), 1), np.inf)
        if found is not None:
            nearest = max(limit.sum(typed(found)) - limit.most for limit in limits)
            better = solved(loss, nearest + TOLERANCE)
            found = found if better is None else better
    if found is None:
        raise NoneLeftError("no assignment was found; report this with the sensitivity's file")
    types = typed(found)
    over = sum(g.types[t].bytes for g, t in zip(groups, types, strict=True)) - room
    if over > 0:  # by less than the solver's tolerance, which is a byte
        return assigned(groups, room - 1, power, limits, fixed, but)
    return types


@contextmanager
def silent() -> Iterator[None]:
    """Nothing goes to standard output meanwhile; SciPy's solver leaves lines of its own there."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
