"""A slice of the lab's own engine that does what llama-bench does, for llama_bench.py.

Warm up, prefill random tokens from an empty context, decode random tokens from an empty context,
through the runtime class that rounds and trials use. Prints tokens per second as JSON.
"""

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

from minillm_lab.jobs.command import run
from minillm_lab.runtimes import open_runtime, resolved


def main(arguments: argparse.Namespace) -> None:
    options = resolved(json.loads(arguments.settings))
    runtime = open_runtime("llama.cpp")
    runtime.prepare(arguments.weights, options)
    runtime.load(arguments.weights, options)
    runtime.prefill([0])
    vocabulary = len(runtime.logits())

    def speed(work: Callable[[list[int]], None], tokens: int) -> float:
        ids = random.choices(range(vocabulary), k=tokens)
        runtime.clear()
        start = time.perf_counter()
        work(ids)
        return tokens / (time.perf_counter() - start)

    def decode(ids: list[int]) -> None:
        for token in ids:
            runtime.decode(token)

    repetitions = range(arguments.repetitions)
    speed(runtime.prefill, arguments.prompt)
    prefilled = [speed(runtime.prefill, arguments.prompt) for _ in repetitions]
    speed(decode, 1)
    decoded = [speed(decode, arguments.generate) for _ in repetitions]
    print(json.dumps({"prefill": prefilled, "decode": decoded}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="a GGUF file")
    parser.add_argument("--settings", required=True, help="how to compute, as JSON")
    parser.add_argument("--prompt", type=int, required=True, help="tokens to prefill")
    parser.add_argument("--generate", type=int, required=True, help="tokens to decode")
    parser.add_argument("--repetitions", type=int, required=True)
    run(main, parser)
