"""The lab's decode and prefill speed against llama-bench, llama.cpp's own benchmark.

Both run in short slices, each a fresh process, since memory layout differs between processes.
Slices come in pairs, taking turns at going first: a ratio within a pair is free of the machine's
drift. A lab slice does what llama-bench does (warm up, prefill random tokens, decode random
tokens from an empty context) through the runtime class that measures the rounds.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from minillm_lab.estimates import paired_ratio
from minillm_lab.jobs.command import progress, run, say
from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import write_text
from minillm_lab.runtimes import Options, open_runtime, resolved

PROMPT = 256  # llama-bench's -p
GENERATE = 64  # llama-bench's -n
REPETITIONS = 2  # llama-bench's -r
PHASES = ("prefill", "decode")

# Where malloc puts llama.cpp's work buffer decides 2 to 4 % of prefill, and differs from program to
# program. With its threshold fixed, at its first value, glibc maps large buffers, all alike.
LAYOUT = {"MALLOC_MMAP_THRESHOLD_": "131072"}

Speeds = dict[str, list[float]]  # tokens per second of each repetition, by phase


class Row(BaseModel):
    """What the lab needs of one test in llama-bench's JSON output."""

    build_commit: str
    cpu_info: str
    n_prompt: int
    n_gen: int
    samples_ts: list[float]


def output_of(command: list[str | Path], name: str) -> str:
    """A program's standard output. Raises LabError with the last line it said when it fails."""
    try:
        done = subprocess.run(
            command, env=os.environ | LAYOUT, capture_output=True, text=True, errors="replace"
        )
    except OSError as error:
        raise LabError(f"cannot run {name}: {error.strerror or error}") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise LabError(f"{name} failed: {said[-1].removeprefix('error: ')}")
    return done.stdout


def peer_slice(binary: Path, weights: Path, options: Options) -> tuple[Row, Speeds]:
    """Run llama-bench once."""
    layers = 99 if options.gpu_layers is None else options.gpu_layers
    command: list[str | Path] = [
        binary, "-m", weights, "-t", str(options.threads), "-p", str(PROMPT), "-n", str(GENERATE),
        "-r", str(REPETITIONS), "-o", "json", "-ngl", str(layers if options.device == "gpu" else 0),
    ]  # fmt: skip
    if options.device == "cpu":  # on a GPU build llama-bench would offload work all the same
        command += ["-nkvo", "1", "-nopo", "1"]
    if options.flash_attention != "auto":  # llama-bench's default
        command += ["-fa", options.flash_attention]
    output = output_of(command, str(binary))
    try:
        rows = TypeAdapter(list[Row]).validate_json(output)
        tests = {(row.n_prompt, row.n_gen): row for row in rows}
        prefill, decode = tests[PROMPT, 0], tests[0, GENERATE]
    except (ValidationError, KeyError) as error:
        raise LabError(f"{binary} did not print llama-bench's JSON for both tests") from error
    speeds = {"prefill": prefill.samples_ts, "decode": decode.samples_ts}
    if any(len(s) != REPETITIONS or min(s) <= 0 for s in speeds.values()):
        raise LabError(f"{binary} did not print {REPETITIONS} speeds for each test")
    return prefill, speeds


def lab_slice(weights: Path, settings: str) -> Speeds:
    """Run the lab's own slice once, in a process of its own."""
    command = [sys.executable, "-m", "minillm_lab.benchmark.peer", "--slice"]
    output = output_of([*command, "--weights", weights, "--settings", settings], "the lab's slice")
    speeds: Speeds = json.loads(output)
    return speeds


def measure_slice(weights: Path, options: Options) -> Speeds:
    """Warm up, then time each phase as llama-bench does: from an empty context, random tokens."""
    runtime = open_runtime("llama.cpp")
    runtime.prepare(weights, options)
    runtime.load(weights, options)
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

    speed(runtime.prefill, PROMPT)
    prefilled = [speed(runtime.prefill, PROMPT) for _ in range(REPETITIONS)]
    speed(decode, 1)
    decoded = [speed(decode, GENERATE) for _ in range(REPETITIONS)]
    runtime.unload()
    return {"prefill": prefilled, "decode": decoded}


def compare(binary: Path, weights: Path, settings: str, pairs: int) -> dict[str, Any]:
    """Run the pairs; the record of them."""
    options = resolved(json.loads(settings))
    lab: list[Speeds] = []
    peer: list[Speeds] = []
    with progress(f"{weights.name} against llama-bench", pairs, "pairs") as advance:
        for i in range(pairs):
            if i % 2:
                lab.append(lab_slice(weights, settings))
            build, speeds = peer_slice(binary, weights, options)
            peer.append(speeds)
            if not i % 2:
                lab.append(lab_slice(weights, settings))
            advance(1)
    record: dict[str, Any] = {
        "weights": str(weights),
        "threads": options.threads,
        "pairs": pairs,
        "build_commit": build.build_commit,
        "cpu_info": build.cpu_info,
        "environment": LAYOUT,
    }
    for phase in PHASES:
        ours, theirs = [s[phase] for s in lab], [s[phase] for s in peer]
        estimate = paired_ratio(ours, theirs)
        record[phase] = {
            "tokens": PROMPT if phase == "prefill" else GENERATE,
            "ratio": estimate.value,
            "ratio_ci95": estimate.ci95,
            "lab_tokens_per_second": ours,
            "llama_bench_tokens_per_second": theirs,
        }
    return record


def main(arguments: argparse.Namespace) -> None:
    weights, settings = arguments.weights, arguments.settings
    if arguments.slice:
        print(json.dumps(measure_slice(weights, resolved(json.loads(settings)))))
        return
    if arguments.pairs < 1:
        raise LabError(f"--pairs must be at least 1, not {arguments.pairs}")
    record = compare(arguments.llama_bench, weights, settings, arguments.pairs)
    for phase in PHASES:
        say(f"{weights.name} {phase}: {record[phase]['ratio']:.3f} of llama-bench's speed")
    write_text(arguments.output, json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    whole = "--slice" not in sys.argv
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slice", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--llama-bench", type=Path, required=whole, help="the program to run")
    parser.add_argument("--weights", type=Path, required=True, help="a GGUF file")
    parser.add_argument("--settings", required=True, help="a variant's settings, as JSON")
    parser.add_argument("--pairs", type=int, required=whole, help="slices of each")
    parser.add_argument("--output", type=Path, required=whole)
    run(main, parser)
