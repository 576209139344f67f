"""The assignment of types to groups of tensors that loses least at a size, made into a recipe.

The losses of groups add up nearly, so the least sum at a size is an integer program, which SciPy's
solver (HiGHS) solves exactly. How far they add up is measured: a few whole files, each the solution
for losses to another power, are scored on the calibration text, and the best is taken.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from math import prod
from pathlib import Path

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import lil_array

from minillm_lab import __version__
from minillm_lab.experiment.sources import UNQUANTIZED
from minillm_lab.jobs.command import run, say
from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import check_space, gguf_files
from minillm_lab.models.imatrix import calibration_text
from minillm_lab.models.quantize import Quantizer
from minillm_lab.recipe import Candidate, Chosen, Recipe, told
from minillm_lab.recipes.errors import ANY, as_they_are, scratch_folder
from minillm_lab.recipes.groups import patterns
from minillm_lab.recipes.sensitivity import Text
from minillm_lab.recipes.shapes import GroupLoss, Sensitivity
from minillm_lab.records import read_record, write_record

POWERS = (1.0, 0.75, 1.35)  # of the losses, a solution for each
WHOLE = {"Q6_K": "Q6_K", "Q5_K": "Q5_K_M", "Q4_K": "Q4_K_M", "Q3_K": "Q3_K_M"}  # a file's type
LINE = 64  # bytes of a header's line at most, beside a pattern
SCALE = 1e4  # of the worst sum of losses, so that the solver's tolerance is far below differences


def assigned(groups: Sequence[GroupLoss], room: int, power: float = 1) -> list[str]:
    """The type of each group that makes the sum of losses to a power least in ``room`` bytes.

    The groups must fit into it in their smallest types.
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
            ],
            options={"mip_rel_gap": 0, "time_limit": 60},
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


def named(types: dict[str, int]) -> str:
    """The type of whole files for a header, by the bytes of each type of tensors.

    It is a quantized one, since in files of others llama.cpp takes no patterns.
    """
    quantized = Counter({t: n for t, n in types.items() if t not in UNQUANTIZED})
    most = quantized.most_common(1)[0][0] if quantized else ANY
    return WHOLE.get(most, most)


class Baker:
    """Makes files by assignments."""

    def __init__(self, weights: Path, imatrix: Path | None, found: Sensitivity) -> None:
        self.weights, self.imatrix, self.found = weights, imatrix, found
        self.own = as_they_are(Quantizer(weights, ANY))
        self.bytes = cache(self._bytes)  # a dry run of the quantizer each
        self.smallest = tuple(min(g.types, key=lambda t: g.types[t].bytes) for g in found.groups)

    def quantizer(self, types: Sequence[str]) -> Quantizer:
        """For the type of each group."""
        by_tensor = {**self.own}  # those in no group stay
        for group, type_ in zip(self.found.groups, types, strict=True):
            by_tensor |= dict.fromkeys(group.tensors, type_)
        tensors = patterns(by_tensor)
        bytes_ = Counter[str]()
        for group, type_ in zip(self.found.groups, types, strict=True):
            bytes_[type_] += group.types[type_].bytes
        return Quantizer(
            self.weights, named(bytes_), self.imatrix, tensors, told(tensors, __version__)
        )

    def room(self, size: int) -> int:
        """Bytes for the groups in a file of a size, with its header and its other tensors.

        Raises LabError if even the smallest types take more.
        """
        least, whole = self.of_groups(self.smallest), self.bytes(self.smallest)
        alone = [g.tensors for g in self.found.groups]
        alone += [[*self.own.keys() - {name for tensors in alone for name in tensors}]]
        lines = [patterns(dict.fromkeys(tensors, "IQ3_XXS")) for tensors in alone]
        longest = sum(len(p) + LINE for made in lines for p in made)  # if no two groups share one
        counted = self.quantizer(self.smallest).tensors  # by ``whole``
        longest -= sum(len(pattern) for pattern in counted)
        if whole > size:
            raise LabError(
                f"the file cannot be as small as {size:,} bytes: with the smallest of these types"
                f" it takes {whole:,}; name a larger size, or more types"
            )
        return max(least, size - (whole - least) - longest)

    def fitted(self, size: int, room: int, power: float) -> tuple[str, ...]:
        """The best assignment for a file of at most ``size`` bytes, with ``room`` for its groups.

        How long the header is depends on the assignment: room that the first one leaves is used.
        Where types take equal bytes, the header alone may be too long for the first.
        """
        groups = self.found.groups
        first = tuple(assigned(groups, room, power))
        left = size - (self.bytes(first) - self.of_groups(first))
        second = tuple(assigned(groups, max(room, left), power))
        return next(t for t in (second, first, self.smallest) if self.bytes(t) <= size)

    def of_groups(self, types: Sequence[str]) -> int:
        """Bytes of the groups by an assignment."""
        return sum(g.types[t].bytes for g, t in zip(self.found.groups, types, strict=True))

    def _bytes(self, types: tuple[str, ...]) -> int:
        """Bytes of the file by an assignment."""
        quantizer = self.quantizer(types)
        return quantizer.size(quantizer.types())


def recipe(
    weights: Path,
    imatrix: Path | None,
    found: Sensitivity,
    text: str,
    size: int,
    types: Sequence[str],
    threads: str | int,
    scratch: Path,
) -> Recipe:
    """The best of a few assignments of ``types`` for a file of at most ``size`` bytes.

    ``scratch``: a folder for their files, which is removed.

    Raises LabError if no assignment is that small.
    """
    groups = [only_of(group, types) for group in found.groups]
    baker = Baker(weights, imatrix, found.model_copy(update={"groups": groups}))
    room = baker.room(size)
    chosen: dict[tuple[str, ...], float] = {}
    for power in POWERS:
        chosen.setdefault(baker.fitted(size, room, power), power)
    check_space(scratch, 2 * max(map(baker.bytes, chosen)))  # one is written beside another
    calibration = Text(weights, text, threads)
    candidates: list[tuple[Candidate, Quantizer, tuple[str, ...]]] = []
    with scratch_folder(scratch) as folder:
        for assignment, power in chosen.items():
            quantizer = baker.quantizer(assignment)
            if (taken := baker.bytes(assignment)) > size:
                raise LabError(f"a file of {taken:,} bytes was chosen, of {size:,}; report this")
            file = folder / "candidate.gguf"
            quantizer.write(file)
            candidate = Candidate(
                power=power,
                bytes=taken,
                predicted=sum(g.types[t].loss for g, t in zip(groups, assignment, strict=True)),
                measured=float(np.mean(calibration.losses(file))),
            )
            say(
                f"candidate {len(candidates) + 1} of {len(chosen)}: {taken:,} bytes, loses"
                f" {candidate.measured:.4f} nats, {candidate.predicted:.4f} predicted"
            )
            candidates.append((candidate, quantizer, assignment))
    best, quantizer, assignment = min(candidates, key=lambda one: one[0].measured)
    same = same_type(found.groups)
    return Recipe(
        lab=__version__,
        size=size,
        bytes=best.bytes,
        type=quantizer.type_,
        tensors=dict(quantizer.tensors),
        predicted=best.predicted,
        measured=best.measured,
        candidates=[candidate for candidate, _, _ in candidates],
        same=same,
        groups=[
            Chosen(
                role=group.role,
                layers=group.layers,
                weights=group.weights,
                type=type_,
                loss=group.types[type_].loss,
                loss_in_same=group.types[same].loss if same else None,
            )
            for group, type_ in zip(found.groups, assignment, strict=True)
        ],
    )


def same_type(groups: Sequence[GroupLoss]) -> str | None:
    """A type that is a choice for every group: the one that most were measured in, if one is."""
    shared = set.intersection(*(set(group.types) for group in groups))
    measured = {t: sum(group.types[t].measured for group in groups) for t in shared}
    return max(sorted(shared), key=lambda t: measured[t], default=None)


def only_of(group: GroupLoss, types: Sequence[str]) -> GroupLoss:
    """A group with these of its types alone. Raises LabError if it has none of them."""
    kept = {name: choice for name, choice in group.types.items() if name in types}
    if not kept:
        raise LabError(
            f"types: none of {', '.join(types)} is a choice for {group.role}; it has"
            f" {', '.join(group.types)}"
        )
    return group.model_copy(update={"types": kept})


def size_asked(arguments: argparse.Namespace) -> int:
    """The most bytes that the file may take."""
    if arguments.size_of:
        return sum(file.stat().st_size for file in gguf_files(arguments.size_of))
    if arguments.bits_per_weight:
        header = Quantizer(arguments.weights, ANY).header
        weights = sum(prod(tensor.shape) for tensor in header.tensors)
        return int(arguments.bits_per_weight * weights / 8)
    if arguments.size is None:
        raise LabError("name a size, a file of that size, or bits per weight")
    return int(arguments.size)


def main(arguments: argparse.Namespace) -> None:
    size = size_asked(arguments)
    say(f"recipe for {size:,} bytes of {arguments.weights}")
    found = recipe(
        arguments.weights,
        arguments.imatrix,
        read_record(arguments.sensitivity, Sensitivity),
        calibration_text(arguments.text),
        size,
        arguments.types,
        "auto",
        arguments.output.with_name(f".{arguments.output.stem}.scratch"),
    )
    write_record(arguments.output, found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="the unquantized GGUF")
    parser.add_argument("--imatrix", type=Path, nargs="?", help="an importance matrix, as GGUF")
    parser.add_argument("--sensitivity", type=Path, required=True, help="its file")
    parser.add_argument("--text", type=Path, required=True, help="the calibration text, UTF-8")
    parser.add_argument("--size", type=int, help="the most bytes of the file")
    parser.add_argument("--size-of", type=Path, nargs="?", help="or as many as this GGUF takes")
    parser.add_argument("--bits-per-weight", type=float, help="or the most bits for each weight")
    parser.add_argument("--types", nargs="+", required=True, help="the types to choose from")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
