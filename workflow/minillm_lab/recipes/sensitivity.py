"""What each group of a model's tensors loses in each type, the rest unquantized.

The loss is the mean KL divergence, in nats, from the unquantized model over chunks of a calibration
text. Each group is measured in two types; what the others lose follows from their error on its
weights (``errors``), as a power law through the two. The layers are cut into as many parts as the
minutes allow. What was measured is kept, so that a search that was killed goes on where it was.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from minillm_lab.ggml import GGML_QUANT_SIZES, GGMLQuantizationType
from minillm_lab.header import Header
from minillm_lab.jobs.command import progress, run, say
from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import check_space, gguf_files, write_text
from minillm_lab.jobs.staleness import stamp
from minillm_lab.models.imatrix import CHUNK, calibration_text, chunks_of
from minillm_lab.models.quantize import ALIGNMENT, Quantizer
from minillm_lab.quality.divergence import (
    TAIL,
    TOP,
    Compact,
    compress,
    divergence,
    log_normalizer,
)
from minillm_lab.quality.evaluation import opened
from minillm_lab.recipes.errors import ANY, errors_of, only, quantizable, scratch_folder
from minillm_lab.recipes.groups import Group, groups_of
from minillm_lab.recipes.shapes import Choice, GroupLoss, Sensitivity
from minillm_lab.records import write_record
from minillm_lab.runtimes import Passage

CHUNKS = 4  # of the calibration text
FIRST_SCORED = 32  # position in a chunk, as in the lab's own protocol
WAY = 1  # of measuring; what was kept by another is measured again
MEASURED = 2  # types of each group
SHARE = 0.8  # of the minutes that are planned for; the rest is for what takes longer
LEAST = 1e-12  # nats; a loss below it is rounding


class Text:
    """Chunks of a calibration text, and what the unquantized model says of them."""

    def __init__(self, weights: Path, text: str, threads: Any, most: int = CHUNKS) -> None:
        """Raises LabError if the text is shorter than a chunk."""
        self.settings = {"runtime": "llama.cpp", "threads": threads}
        self.passages: list[Passage] = []
        self.reference: list[Compact] = []
        random = np.random.default_rng(0)
        with opened(weights, self.settings, CHUNK) as loaded:
            every = chunks_of(getattr(loaded.runtime, "model", None), text)
            if not every:
                raise LabError(f"the calibration text has fewer than {CHUNK} tokens; name another")
            count = min(most, len(every))
            for i in range(count):
                chunk = every[(2 * i + 1) * len(every) // (2 * count)]
                self.passages.append(Passage(chunk[:-1], FIRST_SCORED))
            for passage in self.passages:
                logits = loaded.runtime.logits_of([passage])
                normalizers = log_normalizer(logits)
                if not np.isfinite(normalizers).all():
                    raise LabError(f"{weights}: computes values that are not numbers")
                self.reference.append(compress(logits, normalizers, random, TOP, TAIL))

    @property
    def scored(self) -> int:
        return sum(len(passage.ids) - passage.first for passage in self.passages)

    def losses(self, weights: Path) -> list[float]:
        """The mean divergence of a model over each chunk, in nats."""
        found = []
        with opened(weights, self.settings, CHUNK) as loaded:
            for passage, reference in zip(self.passages, self.reference, strict=True):
                logits = loaded.runtime.logits_of([passage])
                apart = divergence(reference, logits, log_normalizer(logits))
                found.append(float(apart.mean()))
        if not np.isfinite(found).all():
            raise LabError(
                f"{weights}: with these types the model computes values that are not numbers; take"
                " coarse types out of 'types'"
            )
        return found


class Measured:
    """The losses that were measured before, in a file that each new one is added to."""

    def __init__(self, path: Path, of: str) -> None:
        """``of``: what they depend on; those of anything else are dropped."""
        self.path, self.found = path, dict[str, Any]()
        lines = path.read_text().splitlines() if path.exists() else []
        if lines and lines[0] == json.dumps(of):
            for line in lines[1:]:
                try:
                    key, value = json.loads(line)
                except ValueError:
                    break  # it was killed while it wrote
                self.found[key] = value
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [json.dumps(of), *(json.dumps(pair) for pair in self.found.items())]
        write_text(path, "".join(f"{line}\n" for line in kept))

    def keep(self, key: str, value: Any) -> Any:
        self.found[key] = value
        with self.path.open("a") as file:
            file.write(json.dumps([key, value]) + "\n")
        return value


def bytes_of(type_: str, header: Header, tensors: Sequence[str]) -> int:
    """Bytes that tensors take of a file in a type."""
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[type_]]
    shapes = {t.name: t.shape for t in header.tensors}
    taken = [int(np.prod(shapes[name])) // block * size for name in tensors]
    return sum(n + -n % ALIGNMENT for n in taken)


def worth_it(errors: Mapping[str, float], sizes: Mapping[str, int]) -> list[str]:
    """The types that none of fewer or as many bytes has a smaller error than; the largest first."""
    kept: list[str] = []
    for type_ in sorted(errors, key=lambda t: (sizes[t], errors[t])):
        if not kept or errors[type_] < errors[kept[-1]]:
            kept.append(type_)
    return kept[::-1]


def to_measure(errors: Mapping[str, float]) -> list[str]:
    """The types of a group that are measured: the coarsest, and one halfway to the finest."""
    types = sorted(errors, key=lambda t: errors[t])
    low, high = (np.log(max(errors[t], LEAST)) for t in (types[0], types[-1]))
    middle = min(types[:-1], key=lambda t: abs(np.log(max(errors[t], LEAST)) - (low + high) / 2),
                 default=types[-1])  # fmt: skip
    return list(dict.fromkeys([types[-1], middle]))


def predicted(measured: Mapping[float, float], error: float) -> float:
    """The loss at an error, by a power law through measured (error, loss); beyond them of power 1.

    A loss grows with the square of what moves the weights, and so does an error.
    """
    points = sorted((np.log(max(e, LEAST)), np.log(max(v, LEAST))) for e, v in measured.items())
    x = np.log(max(error, LEAST))
    if x <= points[0][0] or len(points) == 1:
        return float(np.exp(points[0][1] + x - points[0][0]))
    if x >= points[-1][0]:
        return float(np.exp(points[-1][1] + x - points[-1][0]))
    (x0, y0), (x1, y1) = next(p for p in pairwise(points) if x <= p[1][0])
    return float(np.exp(y0 + (y1 - y0) * (x - x0) / (x1 - x0)))


class Search:
    """What each group of a model's tensors loses by type; what was measured is kept in a file."""

    def __init__(
        self,
        weights: Path,
        imatrix: Path | None,
        text: str,
        types: Sequence[str],
        threads: Any,
        kept: Path,
    ) -> None:
        """Raises LabError if no tensor can be stored in any of the types."""
        self.imatrix, self.types = imatrix, types
        self.unquantized = Quantizer(weights, ANY, imatrix)
        self.shapes = {tensor.name: tensor.shape for tensor in self.unquantized.header.tensors}
        of = [
            *(stamp(str(file)) for file in [*gguf_files(weights), imatrix] if file),
            hashlib.sha256(text.encode()).hexdigest(),
            version("llama-cpp-python"),
            *(CHUNKS, FIRST_SCORED, WAY),
        ]
        self.kept, self.scratch = Measured(kept, json.dumps(of)), kept.with_suffix(".scratch")
        check_space(self.scratch, sum(file.stat().st_size for file in gguf_files(weights)))
        self.errors = self._errors(quantizable(self.unquantized))
        if not any(self.errors.values()):
            listed = ", ".join(types)
            raise LabError(
                f"{weights}: no tensor's rows divide into blocks of {listed}, or these need an"
                " importance matrix; name other types, or take imatrix: own"
            )
        self.text = Text(weights, text, threads)

    def _errors(self, tensors: list[str]) -> dict[str, dict[str, float]]:
        """The error of each type on each tensor that can hold it."""
        found = {}
        with progress("errors of the types", len(self.types), "types") as advance:
            for type_ in self.types:
                if (key := f"errors of {type_}") not in self.kept.found:
                    errors = errors_of(type_, self.unquantized, tensors, self.scratch)
                    self.kept.keep(key, errors)
                found[type_] = self.kept.found[key]
                advance(1, type_)
        return found

    @property
    def rows(self) -> dict[str, int]:
        """The tensors that can be stored in at least one of the types, with their rows' lengths."""
        able = {name for errors in self.errors.values() for name in errors}
        return {name: shape[0] for name, shape in self.shapes.items() if name in able}

    def loss(self, group: Group, type_: str) -> float:
        """The loss, in nats, where the group alone is stored in a type."""
        if (key := f"{group.key} {type_}") not in self.kept.found:
            with scratch_folder(self.scratch) as folder:
                file = folder / "one.gguf"
                only(self.unquantized, dict.fromkeys(group.tensors, type_)).write(file)
                self.kept.keep(key, self.text.losses(file))
        return float(np.mean(self.kept.found[key]))

    def error(self, group: Group) -> dict[str, float]:
        """The error of each type that all the group's tensors can be stored in."""
        return {
            type_: sum(errors[name] for name in group.tensors)
            for type_, errors in self.errors.items()
            if all(name in errors for name in group.tensors)
        }

    def parts(self, minutes: float) -> int:
        """Into how many parts the layers can be cut, by the time that one measurement takes."""
        if (key := "seconds of a measurement") not in self.kept.found:
            first = groups_of(self.rows, 1)[0]
            errors = self.error(first)
            worst = max(errors, key=lambda t: errors[t])
            self.kept.found.pop(f"{first.key} {worst}", None)  # what was kept takes no time
            start = time.perf_counter()
            self.loss(first, worst)
            self.kept.keep(key, time.perf_counter() - start)
        return parts_within(self.rows, 60 * minutes * SHARE, self.kept.found[key])

    def measure(self, group: Group, advance: Callable[..., None]) -> GroupLoss:
        """What a group loses: in some types as measured, in the others by their errors."""
        errors = self.error(group)
        sizes = {t: bytes_of(t, self.unquantized.header, group.tensors) for t in errors}
        known = {}
        for type_ in to_measure({t: errors[t] for t in worth_it(errors, sizes)}):
            known[type_] = self.loss(group, type_)
            advance(1, f"{group.name} in {type_}")
        points = {errors[t]: loss for t, loss in known.items()}
        return GroupLoss(
            role=group.role,
            layers=list(group.layers),
            tensors=list(group.tensors),
            weights=sum(prod(self.shapes[name]) for name in group.tensors),
            types={
                t: Choice(
                    bytes=sizes[t],
                    error=errors[t],
                    loss=max(known[t], LEAST) if t in known else predicted(points, errors[t]),
                    measured=t in known,
                )
                for t in sorted(errors, key=lambda t: -sizes[t])
            },
        )


def search(
    weights: Path,
    imatrix: Path | None,
    text: str,
    name: str,
    types: Sequence[str],
    minutes: float,
    threads: Any,
    kept: Path,
) -> Sensitivity:
    """What each group loses, over a text of this name. ``kept``: the file of what was measured.

    Raises LabError if no tensor can be stored in any of the types.
    """
    start = time.perf_counter()
    found = Search(weights, imatrix, text, types, threads, kept)
    groups = groups_of(found.rows, found.parts(minutes))
    say(f"{len(groups)} groups of tensors")
    with progress("sensitivity", MEASURED * len(groups), "measurements") as advance:
        losses = [found.measure(group, advance) for group in groups]
    return Sensitivity(
        text=name,
        chunks=len(found.text.passages),
        scored_tokens=found.text.scored,
        unquantized=found.unquantized.header.type,
        imatrix=imatrix is not None,
        parts=found.parts(minutes),
        minutes=(time.perf_counter() - start) / 60,
        groups=losses,
    )


def parts_within(rows: Mapping[str, int], seconds: float, each: float) -> int:
    """Into how many parts the layers can be cut, if one measurement takes ``each`` seconds."""
    layers = max(max(g.layers, default=-1) for g in groups_of(rows, 1)) + 1
    for parts in range(max(layers, 1), 1, -1):
        if MEASURED * len(groups_of(rows, parts)) * each <= seconds:
            return parts
    return 1


def main(arguments: argparse.Namespace) -> None:
    say(f"sensitivity of {arguments.weights}: {arguments.minutes:g} minutes at most")
    found = search(
        arguments.weights,
        arguments.imatrix,
        calibration_text(arguments.text),
        arguments.text.name,
        arguments.types,
        arguments.minutes,
        "auto",
        arguments.output.with_name(f".{arguments.output.name}.measured"),
    )
    write_record(arguments.output, found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="the unquantized GGUF")
    parser.add_argument("--imatrix", type=Path, nargs="?", help="an importance matrix, as GGUF")
    parser.add_argument("--text", type=Path, required=True, help="the calibration text, UTF-8")
    parser.add_argument("--types", nargs="+", required=True, help="the types to choose from")
    parser.add_argument("--minutes", type=float, required=True, help="how long it may take")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
