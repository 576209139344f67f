"""States of a machine: how fast it computes and reads memory at a time, by its yardsticks.

A host moves a virtual machine, a laptop heats up or runs on its battery: speeds and even ratios
change, and an average over such states describes none of them. The rule that finds states:

- Two readings are near if neither yardstick differs by more than ``NEAR``.
- A reading is common if enough readings are near it: a twentieth of all, and at least ``FEWEST``.
- Common readings that are near each other, directly or through others, make one state; readings
  near one of them belong to it.
- A wide state, where nine of ten readings of a yardstick differ by more than a quarter, may be two
  that a few readings join. If it falls into parts where a reading is common only with a tenth of
  the state's readings near it (or three twentieths), the parts are the states, provided that each
  holds a quarter of them, together nine tenths, and their medians differ by ``APART``.
- The rest belong to no state: the machine was changing between states, or was disturbed.

This is DBSCAN (Ester et al. 1996) on the logarithms of both yardsticks, with the larger difference
as the distance.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, count

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import lil_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from minillm_lab.records import Reading

NEAR = 0.08  # of a yardstick's logarithm
FEWEST = 4  # readings, itself included
SHARE = 0.05  # of all readings
WIDE = 1.25  # the high end of nine tenths of a yardstick's readings over the low end
CLOSER = (0.1, 0.15)  # shares of a wide state's readings
APART = 0.14  # between logarithms of medians: 15 %


@dataclass(frozen=True)
class State:
    """One state: the medians of its readings, where nine of ten of them lie, their share of all."""

    compute_flops: float
    memory_bytes_per_second: float
    compute_range: tuple[float, float]
    memory_range: tuple[float, float]
    share: float


def find_states(readings: Sequence[Reading]) -> tuple[list[State], list[int | None]]:
    """The states, the most frequent first, and the state's number of each reading (or None)."""
    if not readings:
        return [], []
    values = np.array([[r.compute_flops, r.memory_bytes_per_second] for r in readings])
    points, labels = np.log(values), list[int | None]()
    for enough in (max(FEWEST, SHARE * len(values)), 2, 1):  # fewer if no reading has that many
        labels = clusters(points, NEAR, enough)
        if any(label is not None for label in labels):
            break
    labels = in_parts(points, labels)
    numbers = sorted(
        {label for label in labels if label is not None}, key=lambda n: (-labels.count(n), n)
    )
    states = []
    for number in numbers:
        own = values[[label == number for label in labels]]
        compute, memory = np.median(own, axis=0).tolist()
        low = np.percentile(own, 5, axis=0, method="lower").tolist()
        high = np.percentile(own, 95, axis=0, method="higher").tolist()
        ranges = [(a, b) for a, b in zip(low, high, strict=True)]
        states.append(State(compute, memory, ranges[0], ranges[1], len(own) / len(values)))
    return states, [None if label is None else numbers.index(label) for label in labels]


def in_parts(points: NDArray[np.float64], labels: list[int | None]) -> list[int | None]:
    """The labels, with numbers of their own for the parts of wide states that fall apart."""
    found, new = list(labels), count(len(labels))
    for number in {*labels} - {None}:
        own = np.flatnonzero([label == number for label in labels])
        if parts := parts_of(points[own]):
            for i in own.tolist():
                found[i] = None
            for part, label in zip(parts, new, strict=False):
                for i in own[part].tolist():
                    found[i] = label
    return found


def parts_of(points: NDArray[np.float64]) -> list[NDArray[np.intp]]:
    """Which points of a wide state are in each of its parts; none if it does not fall apart."""
    low, high = np.percentile(points, (5, 95), axis=0)
    if (high - low).max() < np.log(WIDE):
        return []
    for share in CLOSER:
        closer = clusters(points, NEAR, max(FEWEST, share * len(points)))
        parts = [np.flatnonzero([n == part for n in closer]) for part in {*closer} - {None}]
        parts = [part for part in parts if len(part) >= len(points) / 4]
        centres = [np.median(points[part], axis=0) for part in parts]
        apart = [np.abs(a - b).max() for a, b in combinations(centres, 2)]
        if apart and min(apart) >= APART and sum(map(len, parts)) >= 0.9 * len(points):
            return parts
    return []


def clusters(points: NDArray[np.float64], near: float, enough: float) -> list[int | None]:
    """DBSCAN: the number of a cluster for each of the points, None for noise.

    ``points`` has the shape (n, dimensions). Points in one cell of a grid of ``near`` are near each
    other, so cells are joined instead of points; tens of thousands of readings, nearly all near
    each other, take a second.
    """
    tree = KDTree(points)
    common = tree.query_ball_point(points, near, p=np.inf, return_length=True) >= enough
    core = np.flatnonzero(common)
    if not len(core):
        return [None] * len(points)
    cells: dict[tuple[int, ...], list[int]] = {}
    for i, cell in zip(core.tolist(), np.floor(points[core] / near).astype(int), strict=True):
        cells.setdefault(tuple(cell.tolist()), []).append(i)
    trees = [KDTree(points[members]) for members in cells.values()]
    joined = lil_array((len(cells), len(cells)), dtype=bool)
    for (i, one), (j, other) in combinations(enumerate(cells), 2):
        if max(abs(a - b) for a, b in zip(one, other, strict=True)) <= 1:
            apart, _ = trees[i].query(points[cells[other]], p=np.inf)
            joined[i, j] = apart.min() <= near
    of_cell = connected_components(joined, directed=False)[1]
    found = np.full(len(points), -1)
    for number, members in zip(of_cell.tolist(), cells.values(), strict=True):
        found[members] = number
    if len(rest := np.flatnonzero(~common)):
        apart, nearest = KDTree(points[core]).query(points[rest], p=np.inf)
        found[rest[apart <= near]] = found[core[nearest[apart <= near]]]
    return [None if number < 0 else number for number in found.tolist()]
