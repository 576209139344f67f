"""The types of groups of tensors that lose least within limits: an integer program."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import lil_array

from minillm_lab.jobs.errors import LabError
from minillm_lab.recipes.shapes import GroupLoss

SCALE = 1e4  # of the worst sum of losses, so that the solver's tolerance is far below differences


class TooSlowError(LabError):
    """No types are within the limits."""


@dataclass(frozen=True)
class Limit:
    """A sum over the groups that may be this much: what each costs, by its type."""

    costs: Sequence[Mapping[str, float]]
    most: float


def assigned(
    groups: Sequence[GroupLoss], room: int, power: float = 1, limits: Sequence[Limit] = ()
) -> list[str]:
    """The type of each group that makes the sum of losses to a power least in ``room`` bytes.

    The groups must fit into it in their smallest types. Raises TooSlowError if none that fit are
    within the limits.
    """
    choices = [(i, t, c) for i, group in enumerate(groups) for t, c in group.types.items()]
    losses = np.array([choice.loss**power for _, _, choice in choices])
    worst = sum(max(c.loss for c in group.types.values()) ** power for group in groups)
    of_group = lil_array((len(groups), len(choices)))
    for column, (i, _, _) in enumerate(choices):
        of_group[i, column] = 1
    sizes = np.array([[choice.bytes for _, _, choice in choices]]) / 1e6
    with silent():
        found = milp(
            losses * (SCALE / worst if worst else 1),
            integrality=np.ones(len(choices)),
            bounds=Bounds(0, 1),
            constraints=[
                LinearConstraint(of_group.tocsr(), 1, 1),
                LinearConstraint(sizes, ub=room / 1e6),
                *(
                    LinearConstraint(
                        np.array([[limit.costs[i][t] for i, t, _ in choices]]), ub=limit.most
                    )
                    for limit in limits
                ),
            ],
            options={"mip_rel_gap": 0, "time_limit": 60},
        )
    if found.x is None and limits:
        raise TooSlowError(
            "no file of these types is as small and as fast, by what types cost in time here; name"
            " a larger size, a longer time, or more types"
        )
    if found.x is None:
        raise LabError(f"no assignment was found: {found.message}")
    taken = {i: t for (i, t, _), x in zip(choices, found.x, strict=True) if x > 0.5}
    return [taken[i] for i in range(len(groups))]


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
