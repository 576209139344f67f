"""What each type costs in time: a token's decoding, and reading a prompt, on this machine.

The tensors with rows of one length are stored in a type, the rest of the model stays unquantized,
and this file and the unquantized one take turns at short slices of work in one process. What a
group of them costs is its share of the difference.
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from itertools import count
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

from minillm_lab.jobs.command import progress, run, say
from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import check_space, gguf_files
from minillm_lab.jobs.limits import memory_limit, physical_cores
from minillm_lab.jobs.staleness import stamp
from minillm_lab.models.imatrix import CHUNK, calibration_text, chunks_of
from minillm_lab.models.quantize import Quantizer
from minillm_lab.quality.evaluation import opened
from minillm_lab.recipes.errors import ANY, only, scratch_folder
from minillm_lab.recipes.groups import place_of
from minillm_lab.recipes.sensitivity import Measured
from minillm_lab.recipes.shapes import Alike, GroupLoss, Pace, Sensitivity, Times
from minillm_lab.records import read_record, write_record
from minillm_lab.runtimes import Runtime

PROMPT = 128  # tokens
SLICES, SLICE = 6, 3  # of decoding after each prompt, and their tokens
SECONDS = 5.0  # of turns for a file, in at least LEAST rounds and at most MOST
LEAST, MOST = 3, 6
WAY = 2  # of measuring; what was kept by another is measured again


class Turns:
    """Two models that take turns in one process, each decoding the same text."""

    def __init__(self, file: Path, other: Path, text: str, threads: Any) -> None:
        """Raises LabError if they do not fit into memory together, or the text is too short."""
        parts = {part for one in (file, other) for part in gguf_files(one)}
        needed = sum(part.stat().st_size for part in parts)
        if needed > (there := memory_limit()):
            raise LabError(
                f"{file} and {other} take turns, and do not fit into memory together: they need"
                f" {needed / 1e6:.0f} MB of the {there / 1e6:.0f} MB there are; take time out"
                " of the recipe, or another machine"
            )
        self.files, self.text, self.threads, self.turn = (file, other), text, threads, count()

    def __enter__(self) -> "Turns":
        settings = {"runtime": "llama.cpp", "threads": self.threads}
        with ExitStack() as stack:
            sides = [stack.enter_context(opened(file, settings, CHUNK)) for file in self.files]
            chunks = chunks_of(getattr(sides[0].runtime, "model", None), self.text)
            if not chunks:
                raise LabError(f"the calibration text has fewer than {CHUNK} tokens; name another")
            self.sides: list[Runtime] = [side.runtime for side in sides]
            self.prompt, self.next = chunks[0][:PROMPT], chunks[0][PROMPT:]
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def order(self) -> Iterator[int]:
        """The sides in turn; who goes first alternates."""
        return iter((0, 1) if next(self.turn) % 2 else (1, 0))

    def round(self) -> tuple[list[float], list[list[float]]]:
        """Seconds of each side: for the prompt, and for a token in each slice that follows it."""
        prompt, slices = [0.0, 0.0], []
        for i in self.order():
            self.sides[i].clear()
            start = time.perf_counter()
            self.sides[i].prefill(self.prompt)
            prompt[i] = time.perf_counter() - start
        for at in range(0, SLICES * (SLICE + 1), SLICE + 1):
            taken = [0.0, 0.0]
            for i in self.order():
                self.sides[i].decode(self.next[at])  # the caches held the other side's weights
                start = time.perf_counter()
                for token in self.next[at + 1 : at + 1 + SLICE]:
                    self.sides[i].decode(token)
                taken[i] = (time.perf_counter() - start) / SLICE
            slices.append(taken)
        return prompt, slices

    def pace(self) -> Pace:
        """The first file's times over the second's, by the medians of turns."""
        self.round()  # it touches the weights for the first time
        prompts, slices = list[list[float]](), list[list[float]]()
        start = time.perf_counter()
        while len(prompts) < LEAST or (
            len(prompts) < MOST and time.perf_counter() - start < SECONDS
        ):
            prompt, decoded = self.round()
            prompts.append(prompt)
            slices += decoded
        return Pace(
            decode=median(a / b for a, b in slices),
            prefill=median(a / b for a, b in prompts),
            seconds=median(a for a, _ in slices),
        )


def alike(
    groups: Sequence[GroupLoss], shapes: Mapping[str, Sequence[int]]
) -> list[list[GroupLoss]]:
    """The groups by the length of their rows; those outside the layers alone.

    An embedding from which no output is computed is left out: one of its rows is read for a token.
    """
    found = dict[Any, list[GroupLoss]]()
    for group in groups:
        name = group.tensors[0]
        if name == "token_embd.weight" and "output.weight" in shapes:
            continue
        shape = shapes[name]
        key = (shape[0], len(shape)) if place_of(name)[1] is not None else name
        found.setdefault(key, []).append(group)
    return [*found.values()]


def counted(threads: int | str) -> int:
    """How many threads there are; ``auto`` is as many as this process may use cores."""
    return physical_cores() if threads == "auto" else int(threads)


def times(
    weights: Path,
    imatrix: Path | None,
    groups: Sequence[GroupLoss],
    text: str,
    threads: Any,
    kept: Path,
) -> Times:
    """What the types of the groups cost. ``kept``: the file of what was measured.

    Raises LabError if two files do not fit into memory together.
    """
    unquantized = Quantizer(weights, ANY, imatrix)
    shapes = {tensor.name: tensor.shape for tensor in unquantized.header.tensors}
    files = [file for file in [*gguf_files(weights), imatrix] if file]
    used = counted(threads)
    of = [*(stamp(str(f)) for f in files), version("llama-cpp-python"), used, WAY]
    measured, scratch = Measured(kept, json.dumps(of)), kept.with_suffix(".scratch")
    check_space(scratch, sum(file.stat().st_size for file in gguf_files(weights)))
    found = list[Alike]()
    every = alike(groups, shapes)
    total = sum(len({t for group in members for t in group.types}) for members in every)
    with progress("times of the types", total, "measurements") as advance:
        for members in every:
            names = [name for group in members for name in group.tensors]
            each = Alike(tensors=names, weights={}, types={})
            for type_ in dict.fromkeys(t for group in members for t in group.types):
                tensors = [n for group in members if type_ in group.types for n in group.tensors]
                if (key := json.dumps([type_, tensors])) not in measured.found:
                    with scratch_folder(scratch) as folder:
                        file = folder / "one.gguf"
                        only(unquantized, dict.fromkeys(tensors, type_)).write(file)
                        with Turns(file, weights, text, threads) as turns:
                            measured.keep(key, turns.pace().model_dump())
                pace = measured.found[key]
                each.weights[type_] = sum(prod(shapes[name]) for name in tensors)
                each.types[type_] = Pace.model_validate(pace)
                advance(1, f"rows of {shapes[tensors[0]][0]} in {type_}")
            found.append(each)
    return Times(threads=used, unquantized=unquantized.header.type, alike=found)


class Bound:
    """The time that a file may take: that of another file, or seconds for a token.

    ``most`` has it over the unquantized model's, as that was measured once: a machine that changes
    its speed meanwhile changes both.
    """

    def __init__(
        self,
        found: Times,
        weights: Path,
        asked: Path | float,
        text: str,
        threads: Any,
    ) -> None:
        """``weights``: the unquantized file. ``asked``: the other file, or the seconds."""
        self.found, self.asked, self.text, self.threads = found, asked, text, threads
        self.other = asked if isinstance(asked, Path) else weights
        with Turns(self.other, weights, text, threads) as turns:
            pace = turns.pace()
        if isinstance(asked, Path):
            self.most = {"decode": pace.decode, "prefill": pace.prefill}
        else:
            self.most = {"decode": asked / pace.seconds}

    def __str__(self) -> str:
        """Such as 20 ms a token."""
        if isinstance(self.asked, Path):
            return f"the time of {self.asked.name}"
        return f"{1e3 * self.asked:g} ms a token"

    @property
    def longer(self) -> str:
        """What to name in place of a time that no file takes."""
        return "a slower variant" if isinstance(self.asked, Path) else "a longer time"

    def costs(self, kind: str, groups: Sequence[GroupLoss]) -> list[dict[str, float]]:
        """What each group in each type adds to the unquantized model's time, as a share of it."""
        of_tensor = {name: each for each in self.found.alike for name in each.tensors}
        costs = []
        for group in groups:
            each = of_tensor.get(group.tensors[0])
            costs.append({
                t: (getattr(each.types[t], kind) - 1) * group.weights / each.weights[t]
                if each else 0.0
                for t in group.types
            })  # fmt: skip
        return costs

    def taken(self, file: Path) -> dict[str, float]:
        """A file's times over what it may take, measured in turns."""
        with Turns(file, self.other, self.text, self.threads) as turns:
            pace = turns.pace()
        if isinstance(self.asked, Path):
            return {"decode": pace.decode, "prefill": pace.prefill}
        return {"decode": pace.decode / self.most["decode"]}


def main(arguments: argparse.Namespace) -> None:
    say(f"times of the types of {arguments.weights}, with threads: {arguments.threads}")
    kept = arguments.output.with_name(f".{arguments.output.name}.measured")
    found = times(
        arguments.weights,
        arguments.imatrix,
        read_record(arguments.sensitivity, Sensitivity).groups,
        calibration_text(arguments.text),
        arguments.threads,
        kept,
    )
    write_record(arguments.output, found)
    kept.unlink()  # whoever deletes the output wants other times


def threads_in(argument: str) -> int | str:
    """A number of threads, or auto."""
    return argument if argument == "auto" else int(argument)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="the unquantized GGUF")
    parser.add_argument("--imatrix", type=Path, nargs="?", help="an importance matrix, as GGUF")
    parser.add_argument("--sensitivity", type=Path, required=True, help="the search's file")
    parser.add_argument("--text", type=Path, required=True, help="the calibration text, UTF-8")
    parser.add_argument("--threads", type=threads_in, required=True, help="a number, or auto")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
