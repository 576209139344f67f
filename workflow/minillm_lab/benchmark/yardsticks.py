"""Two yardsticks of the machine: how fast it computes in cache, and how fast it reads memory.

Both run on as many threads as the inference, each thread on numbers of its own. They tell apart
states of the machine that the system does not report (docs/measurement.md), and they are a limit
that a model's speed can be held against: no token is decoded before its weights have been read.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from minillm_lab.errors import LabError
from minillm_lab.job import dies_with

ROWS = 192  # of the square matrices: three of them, float32, are 442 kB and stay in a core's cache
READ_BYTES = 256 << 20  # of memory in all: several times a processor's last cache
SECONDS = 0.25  # that each yardstick takes
ONE_THREAD = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def read(threads: int) -> dict[str, float]:
    """Both yardsticks now: operations and bytes per second. Takes 0.8 s, in a fresh process.

    Raises LabError where they cannot be read.

    A process of its own, so that neither its memory nor its threads are in the caller's figures.
    """
    command = [sys.executable, "-m", "minillm_lab.benchmark.yardsticks", "--threads", str(threads)]
    environment = os.environ | dict.fromkeys(ONE_THREAD, "1")
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        preexec_fn=dies_with(os.getpid()),
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise LabError(f"the machine's speed cannot be read: {said[-1]}")
    reading: dict[str, float] = json.loads(done.stdout)
    return reading


def measure(threads: int) -> dict[str, float]:
    """The readings, taken in this process: its BLAS must be held to one thread."""
    import numpy as np

    def multiply() -> Callable[[], object]:
        a, b, out = np.ones((3, ROWS, ROWS), np.float32)
        return lambda: np.matmul(a, b, out=out)

    def sum_up() -> Callable[[], object]:
        numbers = np.ones(READ_BYTES // 4 // threads, np.float32)
        return lambda: np.dot(numbers, numbers)

    return {
        "compute_flops": 2 * ROWS**3 * rate([multiply() for _ in range(threads)]),
        "memory_bytes_per_second": (
            READ_BYTES / threads * rate([sum_up() for _ in range(threads)])
        ),
    }


def rate(work: list[Callable[[], object]]) -> float:
    """How often per second all threads together do their work; the first time is not counted."""

    def repeat(task: Callable[[], object]) -> float:
        task()
        start = now = time.perf_counter()
        done = 0
        while now < start + SECONDS:
            task()
            done += 1
            now = time.perf_counter()
        return done / (now - start)

    with ThreadPoolExecutor(len(work)) as threads:
        return sum(threads.map(repeat, work))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, required=True)
    print(json.dumps(measure(parser.parse_args().threads)))
