"""Whole files by assignments of types to groups: made, held to their size, scored and timed."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minillm_lab import __version__
from minillm_lab.experiment.sources import UNQUANTIZED
from minillm_lab.jobs.command import say
from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import check_space
from minillm_lab.models.quantize import Quantizer
from minillm_lab.recipe import JUST, Candidate, told
from minillm_lab.recipes.errors import ANY, as_they_are, scratch_folder
from minillm_lab.recipes.groups import patterns
from minillm_lab.recipes.sensitivity import Text
from minillm_lab.recipes.shapes import Sensitivity
from minillm_lab.recipes.solver import Limit, NoneLeftError, assigned
from minillm_lab.recipes.times import Bound

CHUNKS = 12  # of the calibration text that candidates are scored on
ERRORS = 2.0  # standard errors of its mean that a difference between two of them is to be apart
POWERS = (1.0, 0.75, 1.35)  # of the losses, a solution for each
TRIES = 5  # most solutions by the losses themselves, each with more time or less
SPARE = 0.005  # of the time that a file may take; so much less than a slow one has the next
NEAR = 0.01  # of that time; a file that is in time is not given less than this more
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
        self.smallest = tuple(
            min(g.types, key=lambda t: (g.types[t].bytes, len(t), t)) for g in found.groups
        )  # of types with equal bytes the one of the shorter name, which is in the header

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

    def fitted(self, size: int, room: int, power: float, *limits: Any) -> tuple[str, ...]:
        """The best assignment for a file of at most ``size`` bytes, with ``room`` for its groups.

        ``limits`` are those of ``assigned``, and what else it takes. How long the header is depends
        on the assignment: room that the first one leaves is used. Where types take equal bytes, the
        header alone may be too long for the first.
        """
        groups = self.found.groups
        first = tuple(assigned(groups, room, power, *limits))
        left = size - (self.bytes(first) - self.of_groups(first))
        second = tuple(assigned(groups, max(room, left), power, *limits))
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
        self,
        baker: Baker,
        size: int | None,
        text: str,
        threads: str | int,
        scratch: Path,
        bound: Bound | None,
    ) -> None:
        """``size``: the most bytes of a file, if there is a bound. Raises LabError if none fits."""
        self.baker, self.groups, self.bound = baker, baker.found.groups, bound
        self.sized, self.size = size is not None, size or ANY_SIZE
        self.room = baker.room(self.size)
        self.calibration, self.scratch = Text(baker.weights, text, threads, CHUNKS), scratch
        self.taken: dict[tuple[str, ...], Candidate] = {}
        self.losses: dict[tuple[str, ...], NDArray[np.float64]] = {}  # of each chunk
        self.limits = dict[str, Limit]()
        if bound:
            for kind, most in bound.most.items():  # over the unquantized model's time, which is 1
                self.limits[kind] = Limit(bound.costs(kind, self.groups), 1.0, most)

    def taste(self, assignment: tuple[str, ...], power: float) -> Candidate:
        """A file by an assignment, which is made for it."""
        if (taken := self.baker.bytes(assignment)) > self.size:
            raise LabError(f"a file of {taken:,} bytes was chosen, of {self.size:,}; report this")
        check_space(self.scratch, 2 * taken)  # one is written beside another
        with scratch_folder(self.scratch) as folder:
            file = folder / "candidate.gguf"
            self.baker.quantizer(assignment).write(file)
            times = self.bound.taken(file) if self.bound else {}
            losses = self.losses[assignment] = np.array(self.calibration.losses(file))
            found = Candidate(
                power=power,
                bytes=taken,
                predicted=sum(
                    g.types[t].loss for g, t in zip(self.groups, assignment, strict=True)
                ),
                measured=float(losses.mean()),
                times=times,
            )
        said = "".join(f", {share:.1%} of the time for {kind}" for kind, share in times.items())
        say(
            f"candidate {len(self.taken) + 1}: {taken:,} bytes, loses {found.measured:.4f} nats,"
            f" {found.predicted:.4f} predicted{said}"
        )
        return found

    def solution(self, power: float, within: dict[str, float]) -> tuple[str, ...]:
        """The assignment by losses to a power; its file is made and tasted, if none was before.

        It is none that was too slow. ``within``: what it may be predicted to take, by kind of work,
        over what it may take. Where no file is predicted to be so fast, it is one that is the least
        too slow. Raises NoneLeftError.
        """
        limits = [self.limit(kind, most) for kind, most in within.items()]
        slow = [made for made, found in self.taken.items() if not found.in_time]
        below = [self.limit(kind, most) for kind, most in self.slow_from().items()]
        try:
            assignment = self.baker.fitted(self.size, self.room, power, limits, below, slow)
        except NoneLeftError:
            assignment = self.baker.fitted(self.size, self.room, power, limits, (), slow)
        if assignment not in self.taken:
            self.taken[assignment] = self.taste(assignment, power)
        return assignment

    def limit(self, kind: str, most: float) -> Limit:
        """At most so much time for a kind of work, over what a file may take."""
        return replace(self.limits[kind], most=most * self.limits[kind].most)

    def slow_from(self) -> dict[str, float]:
        """What a file may be predicted to take, by kind of work: less than any that was too slow.

        One that was in time in a kind, though predicted to take more, shows that the sums of the
        slow ones below it say nothing.
        """
        found = {}
        for kind in self.limits:
            sums = {made: self.predicted(made)[kind] for made in self.taken}
            in_time = [s for made, s in sums.items() if self.taken[made].times[kind] <= JUST]
            slow = [s for s in sums.values() if s > max(in_time, default=-np.inf)]
            if slow:
                found[kind] = min(slow) - SPARE
        return found

    def search(self) -> None:
        """Make the best files by the losses and their powers.

        After each, the next may be predicted to take more or less, by how far the last one's times
        were off, and less than any that was too slow.
        """
        within = dict.fromkeys(self.limits, 1.0)
        tried = {self.solution(POWERS[0], within): within}
        with suppress(NoneLeftError):
            while len(tried) < TRIES:
                last = [*tried][-1]
                within = self.corrected(last, tried[last])
                if self.taken[last].in_time and within == tried[last]:
                    break
                if (made := self.solution(POWERS[0], within)) in tried:
                    break
                tried[made] = within
        in_time = [made for made in tried if self.taken[made].in_time] or [*tried][-1:]
        best = min(in_time, key=lambda made: self.taken[made].measured)
        with suppress(NoneLeftError):
            for power in POWERS[1:]:
                self.solution(power, tried[best])

    def corrected(self, made: tuple[str, ...], within: dict[str, float]) -> dict[str, float]:
        """What the next file may be predicted to take, after one that was made for ``within``."""
        found, last = {}, self.taken[made]
        for kind, share in last.times.items():
            enough = self.predicted(made)[kind] / share  # as much as would be just in time
            little = last.in_time and enough <= within[kind] + NEAR  # it is not worth another
            found[kind] = within[kind] if little else enough
        return found

    def predicted(self, assignment: tuple[str, ...]) -> dict[str, float]:
        """The sum of the groups' times by kind of work, over what a file may take."""
        return {kind: limit.sum(assignment) / limit.most for kind, limit in self.limits.items()}

    def best(self) -> tuple[tuple[str, ...], Candidate]:
        """The file of the least losses of those that take no longer than they may.

        It is the one of the least sum, unless another loses less by more than chance among chunks.
        Raises LabError if all take longer.
        """
        in_time = {a: found for a, found in self.taken.items() if found.in_time}
        if not in_time and self.bound:
            nearest = min(max(found.times.values()) for found in self.taken.values())
            larger = "a larger size, " if self.sized else ""
            raise LabError(
                f"no file was found that takes {self.bound}: the fastest takes {nearest:.5g} times"
                f" as long; name {larger}{self.bound.longer}, or more types"
            )
        first = min(in_time, key=lambda made: in_time[made].predicted)
        better = {made: found for made, found in in_time.items() if self.beats(made, first)}
        return min((better or {first: in_time[first]}).items(), key=lambda one: one[1].measured)

    def beats(self, made: tuple[str, ...], other: tuple[str, ...]) -> bool:
        """Whether a file loses less than another by more than chance among chunks."""
        less = self.losses[other] - self.losses[made]
        return len(less) > 1 and bool(less.mean() > ERRORS * less.std(ddof=1) / np.sqrt(len(less)))
