"""The assignment of types to groups of tensors that loses least at a size, made into a recipe.

The losses of groups add up nearly, so the least sum at a size is an integer program, which SciPy's
solver (HiGHS) solves exactly. How far they add up is measured: a few whole files, each the solution
for losses to another power, are scored on the calibration text, and the best is taken. Times add up
as well; a whole file that takes longer than it may is solved for again with less time.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from math import prod
from pathlib import Path

import numpy as np

from minillm_lab import __version__
from minillm_lab.experiment.sources import UNQUANTIZED
from minillm_lab.jobs.command import run, say
from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import check_space, gguf_files
from minillm_lab.models.imatrix import calibration_text
from minillm_lab.models.quantize import Quantizer
from minillm_lab.recipe import JUST, Candidate, Chosen, Recipe, told
from minillm_lab.recipes.errors import ANY, as_they_are, scratch_folder
from minillm_lab.recipes.groups import patterns
from minillm_lab.recipes.sensitivity import Text
from minillm_lab.recipes.shapes import GroupLoss, Sensitivity, Times
from minillm_lab.recipes.solver import Limit, TooSlowError, assigned
from minillm_lab.recipes.times import Bound, threads_in
from minillm_lab.records import read_record, write_record

POWERS = (1.0, 0.75, 1.35)  # of the losses, a solution for each
TRIES = 5  # most solutions by the losses themselves, each with more time or less
SPARE = (
    0.005  # of the unquantized model's time; so much less than may be has the next of a slow one
)
NEAR = 0.01  # of that time; a longer one that is fast enough is not looked for closer
ANY_SIZE = 1 << 60  # bytes
WHOLE = {"Q6_K": "Q6_K", "Q5_K": "Q5_K_M", "Q4_K": "Q4_K_M", "Q3_K": "Q3_K_M"}  # a file's type
LINE = 64  # bytes of a header's line at most, beside a pattern


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

    def fitted(
        self, size: int, room: int, power: float, limits: Sequence[Limit] = ()
    ) -> tuple[str, ...]:
        """The best assignment for a file of at most ``size`` bytes, with ``room`` for its groups.

        How long the header is depends on the assignment: room that the first one leaves is used.
        Where types take equal bytes, the header alone may be too long for the first.
        """
        groups = self.found.groups
        first = tuple(assigned(groups, room, power, limits))
        left = size - (self.bytes(first) - self.of_groups(first))
        second = tuple(assigned(groups, max(room, left), power, limits))
        return next(t for t in (second, first, self.smallest) if self.bytes(t) <= size)

    def of_groups(self, types: Sequence[str]) -> int:
        """Bytes of the groups by an assignment."""
        return sum(g.types[t].bytes for g, t in zip(self.found.groups, types, strict=True))

    def _bytes(self, types: tuple[str, ...]) -> int:
        """Bytes of the file by an assignment."""
        quantizer = self.quantizer(types)
        return quantizer.size(quantizer.types())


class Tasting:
    """Whole files by assignments: what they lose on the calibration text, and their time."""

    def __init__(
        self, baker: Baker, text: str, threads: str | int, scratch: Path, bound: Bound | None
    ) -> None:
        self.baker, self.groups, self.bound = baker, baker.found.groups, bound
        self.calibration, self.scratch = Text(baker.weights, text, threads), scratch
        self.taken: dict[tuple[str, ...], Candidate] = {}
        self.costs = {k: bound.costs(k, self.groups) for k in bound.most} if bound else {}

    def taste(self, assignment: tuple[str, ...], size: int, power: float) -> Candidate:
        """A file by an assignment, which is made for it."""
        if assignment in self.taken:
            return self.taken[assignment]
        if (taken := self.baker.bytes(assignment)) > size:
            raise LabError(f"a file of {taken:,} bytes was chosen, of {size:,}; report this")
        check_space(self.scratch, 2 * taken)  # one is written beside another
        with scratch_folder(self.scratch) as folder:
            file = folder / "candidate.gguf"
            self.baker.quantizer(assignment).write(file)
            times = self.bound.taken(file) if self.bound else {}
            found = Candidate(
                power=power,
                bytes=taken,
                predicted=sum(
                    g.types[t].loss for g, t in zip(self.groups, assignment, strict=True)
                ),
                measured=float(np.mean(self.calibration.losses(file))),
                times=times,
            )
        said = "".join(f", {share:.1%} of the time for {kind}" for kind, share in times.items())
        say(
            f"candidate {len(self.taken) + 1}: {taken:,} bytes, loses {found.measured:.4f} nats,"
            f" {found.predicted:.4f} predicted{said}"
        )
        self.taken[assignment] = found
        return found

    def search(self, size: int, room: int) -> None:
        """Make the best files by the losses and their powers.

        Where the first takes too long, one of less time is made, and then those of times halfway
        between the longest that was short enough and the shortest that was not. Raises
        TooSlowError if no file is predicted to be fast enough.
        """
        within = self.bound.most if self.bound else {}
        enough, slow = dict[str, float](), dict[str, float]()
        for _ in range(TRIES):
            try:
                found = self.solution(size, room, POWERS[0], within)
            except TooSlowError:
                if not self.taken:
                    raise
                enough = within
            else:
                if self.taken[found].in_time:
                    enough = within
                else:
                    slow = within
            if not slow or (enough and all(slow[k] - enough[k] < NEAR for k in slow)):
                break
            if enough:
                within = {kind: (slow[kind] + enough[kind]) / 2 for kind in slow}
            else:
                within = self.less(found, slow)
        for power in POWERS[1:]:
            with suppress(TooSlowError):
                self.solution(size, room, power, enough or within)

    def solution(
        self, size: int, room: int, power: float, within: dict[str, float]
    ) -> tuple[str, ...]:
        """The assignment by losses to a power, within times; its file is made and tasted.

        ``within``: by kind of work, over the unquantized model's. Raises TooSlowError if no file
        is predicted to be so fast.
        """
        limits = [Limit(self.costs[kind], most - 1) for kind, most in within.items()]
        assignment = self.baker.fitted(size, room, power, limits)
        self.taste(assignment, size, power)
        return assignment

    def less(self, assignment: tuple[str, ...], within: dict[str, float]) -> dict[str, float]:
        """Less time than a file was made for, by how far it took longer than it may."""
        found = dict(within)
        for kind, share in self.taken[assignment].times.items():
            if share > JUST:
                added = zip(self.costs[kind], assignment, strict=True)
                predicted = 1 + sum(by_type[t] for by_type, t in added)
                found[kind] = min(within[kind], predicted) / share - SPARE
        return found

    def best(self) -> tuple[tuple[str, ...], Candidate]:
        """The file that loses least of those that take no longer than they may.

        Raises LabError if all take longer.
        """
        in_time = {a: found for a, found in self.taken.items() if found.in_time}
        if not in_time:
            nearest = min(max(found.times.values()) for found in self.taken.values())
            raise LabError(
                f"no file was found that takes {self.bound}: the fastest takes {nearest:.3g} times"
                " as long; name a larger size, a longer time, or more types"
            )
        return min(in_time.items(), key=lambda one: one[1].measured)


def recipe(
    weights: Path,
    imatrix: Path | None,
    found: Sensitivity,
    text: str,
    size: int | None,
    types: Sequence[str],
    threads: str | int,
    scratch: Path,
    bound: Bound | None = None,
) -> Recipe:
    """The best of a few assignments of ``types`` for a file of at most ``size`` bytes.

    ``scratch``: a folder for their files, which is removed. ``bound``: how fast it is to be.

    Raises LabError if no assignment is that small and that fast.
    """
    groups = [only_of(group, types) for group in found.groups]
    baker = Baker(weights, imatrix, found.model_copy(update={"groups": groups}))
    room = baker.room(size or ANY_SIZE)
    tasting = Tasting(baker, text, threads, scratch, bound)
    tasting.search(size or ANY_SIZE, room)
    assignment, best = tasting.best()
    quantizer, same = baker.quantizer(assignment), same_type(found.groups)
    return Recipe(
        lab=__version__,
        size=size,
        time=str(bound) if bound else None,
        bytes=best.bytes,
        type=quantizer.type_,
        tensors=dict(quantizer.tensors),
        predicted=best.predicted,
        measured=best.measured,
        candidates=[*tasting.taken.values()],
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


def size_asked(arguments: argparse.Namespace) -> int | None:
    """The most bytes that the file may take, if there is a bound."""
    if arguments.size_of:
        return sum(file.stat().st_size for file in gguf_files(arguments.size_of))
    if arguments.bits_per_weight:
        header = Quantizer(arguments.weights, ANY).header
        weights = sum(prod(tensor.shape) for tensor in header.tensors)
        return int(arguments.bits_per_weight * weights / 8)
    return None if arguments.size is None else int(arguments.size)


def main(arguments: argparse.Namespace) -> None:
    size, text = size_asked(arguments), calibration_text(arguments.text)
    if size is None and not arguments.times:
        raise LabError("name a size, a file of that size, bits per weight, or a time")
    bound = None
    if arguments.times:
        times = read_record(arguments.times, Times)
        asked = arguments.as_fast_as or arguments.seconds
        bound = Bound(times, arguments.weights, asked, text, arguments.threads)
    bounds = [f"{size:,} bytes"] if size else []
    say(f"recipe for {' and '.join([*bounds, *([str(bound)] if bound else [])])}")
    found = recipe(
        arguments.weights,
        arguments.imatrix,
        read_record(arguments.sensitivity, Sensitivity),
        text,
        size,
        arguments.types,
        "auto",
        arguments.output.with_name(f".{arguments.output.stem}.scratch"),
        bound,
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
    parser.add_argument("--times", type=Path, nargs="?", help="what types cost in time, its file")
    parser.add_argument("--as-fast-as", type=Path, nargs="?", help="a GGUF; the file is to be so")
    parser.add_argument("--seconds", type=float, help="or the most for a token")
    parser.add_argument("--threads", type=threads_in, default="auto", help="times are taken with")
    parser.add_argument("--types", nargs="+", required=True, help="the types to choose from")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
