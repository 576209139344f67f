"""Reading a results folder for the commands: its comparison, and the variants of one machine."""

import argparse
from pathlib import Path

from minillm_lab.benchmark import machine
from minillm_lab.comparison.group import by_machine
from minillm_lab.comparison.shapes import Comparison
from minillm_lab.jobs.errors import LabError
from minillm_lab.records import read_record
from minillm_lab.result import Result
from minillm_lab.wording import as_code


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of every command that reads one folder."""
    parser.add_argument(
        "--results", type=Path, default=Path("results"), metavar="FOLDER", help="default: results"
    )
    parser.add_argument("--machine", metavar="FINGERPRINT", help="default: this machine")


def read_comparison(folder: Path) -> Comparison:
    """The comparison in a results folder. Raises LabError where there is none."""
    if not (folder / "comparison.json").is_file():
        raise LabError(
            f"{folder}: no comparison.json in it; run `snakemake --cores 1`, or name another folder"
        )
    return read_record(folder / "comparison.json", Comparison)


def of_one_machine(
    results: dict[str, Result], asked: str | None, here: str | None = None
) -> dict[str, Result]:
    """The results of the machine ``asked`` for, else of this machine, else of the only machine.

    Figures of several machines are never mixed. ``here`` is this machine's fingerprint, which is
    read if it is not given. Raises LabError if it is not clear which machine is meant.
    """
    groups = by_machine(results)
    wanted = asked or here or machine.describe()["fingerprint"]
    if wanted in groups:
        return groups[wanted]
    if asked is None and len(groups) == 1:
        return next(iter(groups.values()))
    listed = ", ".join(as_code(fingerprint) for fingerprint in groups)
    raise LabError(
        f"nothing was measured on machine {as_code(wanted)}; choose one with --machine: {listed}"
    )


def chosen(results: dict[str, Result], variant: str) -> Result:
    """One variant's result. Raises LabError that lists the names if there is no such variant."""
    if variant not in results:
        listed = ", ".join(as_code(name) for name in results)
        raise LabError(f"no variant {as_code(variant)} was measured here; choose one of {listed}")
    return results[variant]
