"""Two yardsticks of the machine: how fast it computes in cache, and how fast it reads memory.

Both run on as many threads as the inference, each thread on numbers of its own. They distinguish
states of the machine that the system does not report (docs/measurement.md). They also limit a
model's speed, since no token is decoded before its weights have been read.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.watcher import talking

if TYPE_CHECKING:
    from minillm_lab.records import Reading

ROWS = 192  # of each square matrix; three in float32 are 442 kB and stay in a core's cache
READ_BYTES = 256 << 20  # of memory in all, several times a processor's last cache
SECONDS = 0.1  # for each yardstick
ONE_THREAD = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


@contextmanager
def yardsticks(threads: int) -> Iterator[Callable[[], "Reading"]]:
    """A function that reads both yardsticks in 0.2 s, as often as it is called.

    It reads in a process of its own, which sleeps between readings, so that its memory and threads
    are not in the caller's figures. Raises LabError if it cannot read.
    """
    from minillm_lab.records import Reading  # which the process that reads need not import

    command = [sys.executable, "-m", "minillm_lab.benchmark.yardsticks", "--threads", str(threads)]
    process = talking(command, env=os.environ | dict.fromkeys(ONE_THREAD, "1"))
    assert process.stdin and process.stdout
    commands, readings = process.stdin, process.stdout

    def read() -> "Reading":
        try:
            print("read", file=commands)
            return Reading.model_validate_json(readings.readline())
        except (OSError, ValueError) as error:
            raise LabError(
                "the machine's speed cannot be read, since the yardsticks' process ended; run again"
            ) from error

    try:
        yield read
    finally:
        process.kill()
        process.communicate()


def read_once(threads: int) -> "Reading":
    """Both yardsticks now, by a process that ends afterwards and frees its memory."""
    with yardsticks(threads) as read:
        return read()


class Yardsticks:
    """Both yardsticks in this process, whose BLAS must use one thread."""

    def __init__(self, threads: int) -> None:
        import numpy as np

        def multiply() -> Callable[[], object]:
            a, b, out = np.ones((3, ROWS, ROWS), np.float32)
            return lambda: np.matmul(a, b, out=out)

        def sum_up() -> Callable[[], object]:
            numbers = np.ones(READ_BYTES // 4 // threads, np.float32)
            return lambda: np.dot(numbers, numbers)

        self.compute = [multiply() for _ in range(threads)]
        self.memory = [sum_up() for _ in range(threads)]

    def read(self) -> dict[str, float]:
        """A reading: operations and bytes per second."""
        return {
            "compute_flops": 2 * ROWS**3 * rate(self.compute),
            "memory_bytes_per_second": READ_BYTES / len(self.memory) * rate(self.memory),
        }


def rate(work: list[Callable[[], object]]) -> float:
    """Times per second that all threads together do their work; the first is not counted."""

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
    own = Yardsticks(parser.parse_args().threads)
    for _ in sys.stdin:
        print(json.dumps(own.read()), flush=True)
