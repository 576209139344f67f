"""One side of a trial: a process that holds a model and works in short slices when told to.

It reads commands from its standard input, one a line, and answers each with a line of JSON:

    prefill     the prompt, from an empty context, and the choice of the first token
    decode N    N tokens after it; they continue the answer, which starts over at its end

The process was stopped before a command: its threads are asleep and its caches belong to the other
side. One token is decoded before the clock starts.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from minillm_lab.jobs.command import run
from minillm_lab.records import Prompt, read_record
from minillm_lab.runtimes import described, open_runtime, resolved

clock = time.perf_counter


class Slices:
    """A model in its runtime, and where its answer stands."""

    def __init__(self, weights: Path, prompt: list[int], settings: dict[str, Any]) -> None:
        options = resolved(settings)
        self.prompt, self.room = prompt, settings["generate"] - 1
        self.runtime = open_runtime(settings["runtime"])
        self.runtime.prepare(weights, options)
        self.runtime.load(weights, options)
        self.facts = described(settings["runtime"], options, self.runtime)
        self.start_over()

    def start_over(self) -> tuple[float, float]:
        """Process the prompt from an empty context; seconds for it, and with the first token."""
        self.runtime.clear()
        start = clock()
        self.runtime.prefill(self.prompt)
        prefilled = clock()
        self.token, self.done = int(self.runtime.logits().argmax()), 0
        return prefilled - start, clock() - start

    def step(self) -> float:
        """Decode one token; seconds in the engine."""
        before = clock()
        self.runtime.decode(self.token)
        seconds = clock() - before
        self.token = int(self.runtime.logits().argmax())
        self.done += 1
        return seconds

    def prefill(self) -> dict[str, float]:
        """Seconds for the prompt, and with the choice of the first token."""
        if self.done >= self.room:
            self.start_over()
        self.step()
        prefill, first = self.start_over()
        return {"prefill_seconds": prefill, "first_token_seconds": first}

    def decode(self, tokens: int) -> dict[str, float]:
        """Seconds for one token of ``tokens``, without choosing it and with."""
        if self.done + tokens + 1 > self.room:
            self.start_over()
        self.step()
        start = clock()
        engine = sum(self.step() for _ in range(tokens))
        return {"decode_seconds": engine / tokens, "step_seconds": (clock() - start) / tokens}


def main(arguments: argparse.Namespace) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    prompt = read_record(arguments.prompt, Prompt).token_ids
    side = Slices(arguments.weights, prompt, json.loads(arguments.settings))
    say({"runtime": side.facts, "prompt_tokens": len(prompt)})
    for command in sys.stdin:
        what, _, tokens = command.strip().partition(" ")
        say(side.prefill() if what == "prefill" else side.decode(int(tokens)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="a GGUF file or a folder")
    parser.add_argument("--prompt", type=Path, required=True, help="the prompt, tokenized")
    parser.add_argument("--settings", required=True, help="how to compute, as JSON")
    run(main, parser)
