"""Broken and hostile GGUF files by the thousand: inspected, and those that pass loaded.

    python benchmarks/fuzz.py --inspect 5000 --load 200

Each is a mutation of a tiny model's file, from its own seed. It must pass the inspection or be
refused in one line that names it. One that passes is loaded in a process of its own, as the
workflow does: it must be measured, or refused in one line. Anything else stops the script.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "models")]

from broken_gguf import header_bytes, inspect, load, mutated, mutated_value  # noqa: E402

from tiny_model import write_tiny_gguf  # noqa: E402


@dataclass
class Tally:
    """What became of the files, and the worst that one of them took."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    memory: int = 0  # bytes
    slowest: int = -1  # its seed

    def add(self, outcome: str, seed: int, seconds: float, memory: int) -> None:
        self.outcomes[outcome] += 1
        self.memory = max(self.memory, memory)
        if seconds > self.seconds:
            self.seconds, self.slowest = seconds, seed


def peak_since_reset(reset: bool = False) -> int:
    """The high-water mark of this process's memory in bytes (Linux), started anew on request."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inspect", type=int, default=5000, help="files to inspect")
    parser.add_argument("--load", type=int, default=200, help="files that pass, to load")
    parser.add_argument("--seed", type=int, default=0, help="of the first file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        whole = Path(name, "whole.gguf")
        write_tiny_gguf(whole)
        content, header, file = whole.read_bytes(), header_bytes(whole), Path(name, "file.gguf")
        inspected, loaded, started = Tally(), Tally(), time.perf_counter()
        for seed in range(arguments.seed, arguments.seed + arguments.inspect):
            file.write_bytes(mutated(content, header, seed))
            before, start = peak_since_reset(reset=True), time.perf_counter()
            outcome = inspect(file)
            took = time.perf_counter() - start
            inspected.add(outcome, seed, took, peak_since_reset() - before)
        print(f"inspected in {time.perf_counter() - started:.0f} s: {inspected}", flush=True)
        seed, started = arguments.seed, time.perf_counter()
        while loaded.outcomes.total() < arguments.load:
            file.write_bytes(mutated_value(content, header, seed))
            if inspect(file) == "passed":
                start = time.perf_counter()
                outcome = load(file)
                loaded.add(outcome, seed, time.perf_counter() - start, 0)
            seed += 1
        loaded.memory = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # the worst
        print(f"loaded up to seed {seed} in {time.perf_counter() - started:.0f} s: {loaded}")


if __name__ == "__main__":
    main()
