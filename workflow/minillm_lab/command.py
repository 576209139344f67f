"""How every module of the lab runs as a command: one clear line when it fails, a log beside it."""

import argparse
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger("minillm_lab")


class LabError(Exception):
    """Something a person can put right. The message is one line: what is wrong and the way out."""


def first_line(error: BaseException) -> str:
    """The first line of another library's error, or its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def say(message: str) -> None:
    """Tell the person at the terminal what is happening, and keep it in the log."""
    print(message, file=sys.stderr, flush=True)
    log.info(message)


@contextmanager
def progress(doing: str, total: int, unit: str) -> Iterator[Callable[..., None]]:
    """A bar with the time left at a terminal, nothing elsewhere.

    Yields ``advance(n, stage="")``: so many units are done, and what comes next.
    """
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # no thread beside a measurement
    with tqdm(desc=doing, total=total, unit=f" {unit}", disable=None, leave=False) as bar:

        def advance(n: int, stage: str = "") -> None:
            bar.set_postfix_str(stage, refresh=False)
            bar.update(n)
            bar.refresh()

        yield advance


def run(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Parse the command line, run ``main``, and turn a LabError into one line and exit status 1.

    Every command takes ``--log FILE``: what the runtimes print goes there, not to the terminal.
    """
    parser.add_argument("--log", type=Path, metavar="FILE", help="write details to FILE")
    arguments = parser.parse_args()
    log.setLevel(logging.INFO)
    log.addHandler(logging.NullHandler())
    if arguments.log:
        arguments.log.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(arguments.log, mode="w", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.addHandler(handler)
    try:
        main(arguments)
    except LabError as error:
        log.error("error: %s", error, exc_info=error.__cause__)
        sys.exit(f"error: {error}")
    except Exception:
        log.exception("unexpected error")
        raise
