"""The assignment of types to groups of tensors that loses least at a size, made into a recipe.

The losses of groups add up nearly, so the least sum at a size is an integer program, which SciPy's
solver (HiGHS) solves exactly. How far they add up is measured: a few whole files, each the solution
for losses to another power, are scored on the calibration text, and the best is taken. Times add up
as well; a whole file that takes longer than it may is solved for again with less time
(``candidates``).
"""

import argparse
from collections.abc import Sequence
from math import prod
from pathlib import Path

from minillm_lab import __version__
from minillm_lab.jobs.command import run, say
from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import gguf_files
from minillm_lab.models.imatrix import calibration_text
from minillm_lab.models.quantize import Quantizer
from minillm_lab.recipe import Chosen, Recipe
from minillm_lab.recipes.candidates import Baker, Tasting
from minillm_lab.recipes.errors import ANY
from minillm_lab.recipes.shapes import GroupLoss, Sensitivity, Times
from minillm_lab.recipes.times import Bound, counted, threads_in
from minillm_lab.records import read_record, write_record


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
    tasting = Tasting(baker, size, text, threads, scratch, bound)
    tasting.search()
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
        times, used = read_record(arguments.times, Times), counted(arguments.threads)
        if times.threads != used:
            raise LabError(
                f"{arguments.times}: was measured with {times.threads} threads, and now there are"
                f" {used}; delete it, and it is measured again"
            )
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
