"""Opening a model for quality, and running the evaluation text through it chunk by chunk."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minillm_lab.jobs.command import progress
from minillm_lab.jobs.errors import LabError
from minillm_lab.quality.questions import CHOICES
from minillm_lab.quality.text import EvaluationText
from minillm_lab.runtimes import (
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
    """The context that the text, its questions and its replies need, in tokens."""
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


def greedy(runtime: Runtime, prompt: list[int], tokens: int) -> list[int]:
    """The ids of ``tokens`` new tokens, each the most likely one; end of text is ignored."""
    runtime.clear()
    runtime.prefill(prompt)
    ids = [int(runtime.logits().argmax())]
    while len(ids) < tokens:
        runtime.decode(ids[-1])
        ids.append(int(runtime.logits().argmax()))
    return ids


def evaluate(
    loaded: Loaded, text: EvaluationText, doing: str
) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.intp]]]:
    """Yield (number, logits, next tokens) of each chunk, shapes (n, vocabulary) and (n,).

    A chunk's last token is not evaluated, since no token follows it. The logits are valid until the
    next chunk.
    """
    first = text.protocol.score_from
    with progress(doing, sum(map(len, text.chunks)), "tokens") as advance:
        for number, ids in enumerate(text.chunks):
            logits = loaded.runtime.logits_of([Passage(ids[:-1], first)])
            yield number, logits, np.array(ids[first + 1 :])
            advance(len(ids))
