"""One side of a trial: a process that holds a model and works in short slices on command.

It reads commands from its standard input, one per line, and reports each with a line of JSON:

    prefill       process the prompt from an empty context and choose the first token
    decode N M    decode N more tokens of the answer, M tokens on; at its end it starts over

Before a command the process was stopped: its threads are asleep and the caches hold the other
side's data. So one token is computed before the clock starts.
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
    """A model in its runtime, and its position in the answer."""

    def __init__(self, weights: Path, prompt: list[int], settings: dict[str, Any]) -> None:
        options = resolved(settings)
        self.prompt, self.room = prompt, settings["generate"] - 1
        self.runtime = open_runtime(settings["runtime"])
        self.runtime.prepare(weights, options)
        self.runtime.load(weights, options)
        self.facts = described(settings["runtime"], options, self.runtime)
        self.start_over()
        if self.facts["backend"] != "CPU":  # a GPU's kernels are chosen at each length's first use
            while self.done < self.room:
                self.step()

    def start_over(self) -> tuple[float, float]:
        """Process the prompt from an empty context; seconds without and with the first token."""
        self.runtime.clear()
        start = clock()
        self.runtime.prefill(self.prompt)
        prefilled = clock()
        self.token, self.done = int(self.runtime.logits().argmax()), 0
        return prefilled - start, clock() - start

    def step(self) -> float:
        """Decode one token; the engine's seconds."""
        before = clock()
        self.runtime.decode(self.token)
        seconds = clock() - before
        self.token = int(self.runtime.logits().argmax())
        self.done += 1
        return seconds

    def prefill(self) -> dict[str, float]:
        """Seconds for the prompt, without and with choosing the first token."""
        self.runtime.clear()
        self.runtime.prefill([self.token])
        prefill, first = self.start_over()
        return {"prefill_seconds": prefill, "first_token_seconds": first}

    def decode(self, tokens: int, skipped: int = 0) -> dict[str, float]:
        """Mean seconds for one of ``tokens`` tokens, without and with choosing it.

        Of an answer that would take too long, ``skipped`` tokens before them are read at once.
        """
        if self.done + skipped + tokens + 1 > self.room:
            self.start_over()
        if skipped:
            self.runtime.prefill([self.token] * skipped)
            self.done += skipped
        self.step()
        start = clock()
        engine = sum(self.step() for _ in range(tokens))
        return {"decode_seconds": engine / tokens, "step_seconds": (clock() - start) / tokens}


def main(arguments: argparse.Namespace) -> None:
    reports = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print to standard error, apart from the reports

    def report(line: dict[str, Any]) -> None:
        reports.write(json.dumps(line) + "\n")
        reports.flush()

    prompt = read_record(arguments.prompt, Prompt).token_ids
    side = Slices(arguments.weights, prompt, json.loads(arguments.settings))
    report({"runtime": side.facts, "prompt_tokens": len(prompt)})
    for line in sys.stdin:
        command, *tokens = line.split()
        report(side.prefill() if command == "prefill" else side.decode(*map(int, tokens)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="a GGUF file or a folder")
    parser.add_argument("--prompt", type=Path, required=True, help="the prompt, tokenized")
    parser.add_argument("--settings", required=True, help="how to compute, as JSON")
    run(main, parser)
