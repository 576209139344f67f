"""Quality that cannot be measured costs no speeds: the reason takes the place of the figures.

A job of quality that fails for a reason that a person can put right, or out of memory, says so
in one line, leaves the reason where its output belongs, and ends well; the jobs after it pass the
reason on, and each result says it among its warnings. It is tried again when what it is made from
changes, and when it is asked for: ``--forcerun`` and its output.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from minillm_lab.jobs.command import explained, out_of_memory, say
from minillm_lab.jobs.errors import LabError
from minillm_lab.records import Record, write_record

LONGEST = 1 << 16  # bytes of a reason; a text or a reference may be far larger

Main = Callable[[argparse.Namespace], None]


class NotMeasured(Record):
    """What stands in the place of a text or a reference that could not be made."""

    not_measured: str


class PassedOnError(LabError):
    """The reason that an earlier job left."""


def leave(arguments: argparse.Namespace, reason: str) -> None:
    """Write the reason to where the job's output belongs."""
    write_record(arguments.output, NotMeasured(not_measured=reason))


def pass_on(*paths: Path) -> None:
    """Raise PassedOnError where one of the files holds a reason instead of what is read from it."""
    for path in paths:
        try:
            if path.stat().st_size > LONGEST:
                continue
            found = NotMeasured.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            continue  # reading it says what is wrong
        raise PassedOnError(found.not_measured)


def tried(main: Main, leave: Callable[[argparse.Namespace, str], None] = leave) -> Main:
    """A job's main that leaves the reason where it fails; other errors are raised as before."""

    def attempt(arguments: argparse.Namespace) -> None:
        try:
            main(arguments)
        except PassedOnError as error:
            leave(arguments, str(error))
        except Exception as error:
            if not isinstance(error, LabError) and not out_of_memory(error):
                raise
            reason = f"quality is not measured: {explained(error)}"
            say(f"note: {reason}")
            again = f"add --forcerun {arguments.output} to the command"
            leave(arguments, f"{reason}; to try again, {again}")

    return attempt
