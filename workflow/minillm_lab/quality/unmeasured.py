"""If quality cannot be measured, speeds still are: the reason is written in place of the figures.

A job of quality may fail for a reason that a person can fix, or out of memory. It then says so in
one line, writes the reason to its output, and ends well. The jobs after it pass the reason on, and
each result has it among its warnings. The job runs again if its inputs change, or if ``--forcerun``
names its output.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from minillm_lab.jobs.command import explained, out_of_memory, say
from minillm_lab.jobs.errors import LabError
from minillm_lab.records import Record, write_record

LONGEST = 1 << 16  # bytes of a reason; a text or a reference is usually larger

Main = Callable[[argparse.Namespace], None]


class NotMeasured(Record):
    """The record in place of a text or a reference that could not be made."""

    not_measured: str


class PassedOnError(LabError):
    """The reason that an earlier job left."""


def leave(arguments: argparse.Namespace, reason: str) -> None:
    """Write the reason to the job's output."""
    write_record(arguments.output, NotMeasured(not_measured=reason))


def pass_on(*paths: Path) -> None:
    """Raise PassedOnError if one of the files holds a reason in place of its content."""
    for path in paths:
        try:
            if path.stat().st_size > LONGEST:
                continue
            found = NotMeasured.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            continue  # reading it says what is wrong
        raise PassedOnError(found.not_measured)


def tried(main: Main, leave: Callable[[argparse.Namespace, str], None] = leave) -> Main:
    """A job's main that writes the reason if it fails; unexpected errors are raised as before."""

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
