"""How every module of the lab runs as a command: with a log, and one clear line if it fails."""

import argparse
import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from minillm_lab.jobs.errors import LabError, first_line
from minillm_lab.jobs.limits import memory_limit, peak

log = logging.getLogger("minillm_lab")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error, by its kind or its words, means that memory ran out."""
    words = r"allocate memory|(failed|unable) to allocate|bad_alloc|out of memory"
    return isinstance(error, MemoryError) or bool(re.search(words, str(error), re.I))


def explained(error: Exception) -> str:
    """An error as one line; if memory ran out, with the memory taken and the memory available."""
    if not out_of_memory(error):
        return str(error)
    failed = first_line(error).partition("; ")[0]  # without advice; what follows gives some
    return (
        f"{failed}: out of memory: this process took up to {peak() / 1e6:.0f} MB, of"
        f" {memory_limit() / 1e6:.0f} MB; take a smaller quantization or context, or close other"
        " programs"
    )


def say(message: str) -> None:
    """Print a message on the terminal and write it to the log."""
    print(message, file=sys.stderr, flush=True)
    log.info(message)


@contextmanager
def progress(doing: str, total: int, unit: str) -> Iterator[Callable[..., None]]:
    """A bar with the time left on a terminal, and nothing elsewhere; the log names the stages.

    Yields ``advance(n, stage="")``, which says that n more units are done and names the next stage.
    """
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # no thread beside a measurement
    with tqdm(desc=doing, total=total, unit=f" {unit}", disable=None, leave=False) as bar:

        def advance(n: int, stage: str = "") -> None:
            if stage:
                log.info("%s: %s", doing, stage)
            bar.set_postfix_str(stage, refresh=False)
            bar.update(n)
            bar.refresh()

        yield advance


def keep_log(path: Path) -> None:
    """Write the log to a file from now on. Raises LabError if the file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, mode="w", encoding="utf-8")
    except OSError as error:
        raise LabError(f"cannot write {path}: {error.strerror}") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)


def run(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Parse the command line and run ``main``; a LabError becomes one line and exit status 1.

    Every command takes ``--log FILE``: the runtimes' messages go there, not to the terminal.
    """
    parser.add_argument("--log", type=Path, metavar="FILE", help="write details to FILE")
    arguments = parser.parse_args()
    log.setLevel(logging.INFO)
    log.addHandler(logging.NullHandler())
    logging.raiseExceptions = False  # a log that cannot be written stops nothing
    try:
        if arguments.log:
            keep_log(arguments.log)
        main(arguments)
    except Exception as error:
        if not isinstance(error, LabError) and not out_of_memory(error):
            log.exception("unexpected error: %s", first_line(error))
            raise
        line = explained(error)
        log.error("error: %s", line, exc_info=error.__cause__)
        sys.exit(f"error: {line}")
