"""Opening a model for quality, and running the evaluation text through it piece by piece."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minillm_lab.jobs.command import progress
from minillm_lab.jobs.errors import LabError
from minillm_lab.quality.questions import CHOICES
from minillm_lab.quality.text import EvaluationText
from minillm_lab.runtimes import (
    STEP,
    Passage,
    Runtime,
    check_memory,
    described,
    open_runtime,
    resolved,
)

REPLY = 64  # tokens of the reply to each of the eight prompts


@dataclass(frozen=True)
class Loaded:
    """A model in its runtime, and the runtime's facts about itself."""

    runtime: Runtime
    facts: dict[str, Any]

    def vocabulary(self, text: EvaluationText) -> int:
        """The size of the model's vocabulary. Raises LabError if the text's ids exceed it."""
        size: int = self.runtime.logits_of([Passage(text.chunks[0][:1], 0)]).shape[1]
        if text.largest_id >= size:
            raise LabError(
                f"the text's tokens exceed the model's vocabulary of {size}: its tokenizer belongs"
                " to another model; replace it"
            )
        return size


def longest(text: EvaluationText) -> int:
    """The context that the chunks, the questions and the replies need, in tokens."""
    asked = [len(q.prompt) + sum(map(len, q.choices)) for q in text.questions]
    replied = [len(prompt) + REPLY for prompt in text.prompts]
    return max(text.protocol.context, *asked, *replied, 16)


@contextmanager
def opened(weights: Path, settings: dict[str, Any], context: int) -> Iterator[Loaded]:
    """Load a model with room for ``context`` tokens. Raises LabError if it cannot be loaded."""
    options = resolved(settings, context=context, sequences=CHOICES)
    check_memory(weights, options)
    runtime = open_runtime(settings["runtime"])
    runtime.prepare(weights, options)
    runtime.load(weights, options)
    try:
        yield Loaded(runtime, described(settings["runtime"], options, runtime))
    finally:
        runtime.unload()


class Piece(NamedTuple):
    """A piece of a passage: n scored tokens that are evaluated at once."""

    number: int  # among all pieces of the text
    passage: int  # its number in the text's passages
    rows: slice  # which of the passage's scored tokens
    next: NDArray[np.intp]  # (n,): the tokens that the text goes on with


def pieces(text: EvaluationText) -> list[Piece]:
    """The pieces of all passages in order.

    A passage's last token is not evaluated, since no token follows it.
    """
    found = list[Piece]()
    for number, (ids, first) in enumerate(text.passages):
        for start in range(0, len(ids) - 1, STEP):
            stop = min(start + STEP, len(ids) - 1)
            if (begin := max(start, first)) < stop:
                rows = slice(begin - first, stop - first)
                following = np.array(ids[begin + 1 : stop + 1])
                found.append(Piece(len(found), number, rows, following))
    return found


def evaluate(
    loaded: Loaded, text: EvaluationText, doing: str, passages: Iterable[int] | None = None
) -> Iterator[tuple[Piece, NDArray[np.float32]]]:
    """Yield each piece with its logits, shape (n, vocabulary), valid until the next.

    ``passages``: the numbers of those to evaluate; without it, the chunks.
    """
    chosen = list(range(len(text.chunks)) if passages is None else passages)
    every = [piece for piece in pieces(text) if piece.passage in {*chosen}]
    passed = (Passage(ids[:-1], first) for ids, first in (text.passages[n] for n in chosen))
    streams = map(loaded.runtime.stream, passed)
    with progress(doing, sum(len(piece.next) for piece in every), "tokens") as advance:
        for piece, logits in zip(every, chain.from_iterable(streams), strict=True):
            yield piece, logits
            advance(len(logits))


def evaluate_long(
    weights: Path, settings: dict[str, Any], text: EvaluationText, doing: str
) -> Iterator[tuple[Piece, NDArray[np.float32]]]:
    """The same for the long passages, each in a context of its own length.

    Some models scale positions by the length of the context, so a longer one changes short texts.
    """
    for number in range(len(text.chunks), len(text.passages)):
        context = len(text.passages[number][0])
        with opened(weights, settings, context) as loaded:
            yield from evaluate(loaded, text, f"{doing}, context of {context}", [number])
