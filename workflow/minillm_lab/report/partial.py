"""The table after a run in which variants failed: the others' figures, and why these have none.

Snakemake makes the comparison of whole experiments only. This one goes to the table, the CSV and
the page alone; ``comparison.json`` is removed, so that the next run compares again.
"""

import argparse
import json
from pathlib import Path

from minillm_lab.comparison.compare import compare
from minillm_lab.jobs.command import run, say
from minillm_lab.jobs.files import write_text
from minillm_lab.records import read_record
from minillm_lab.report import tables
from minillm_lab.report.front import front
from minillm_lab.report.readme import details, update_both
from minillm_lab.result import Result


def main(arguments: argparse.Namespace) -> None:
    failed = json.loads(arguments.failed)
    there = [path for path in arguments.results if path.exists() and path.stem not in failed]
    results = {path.stem: read_record(path, Result) for path in there}
    shown = {variant: for_others for variant, (_, for_others) in failed.items()}
    comparison = compare(results, arguments.baseline, arguments.experiment_command, failed=shown)
    arguments.json.unlink(missing_ok=True)
    write_text(arguments.markdown, tables.markdown(comparison) + "\n")
    write_text(arguments.csv, tables.csv_of(comparison))
    if arguments.page:
        texts = front(comparison, arguments.page, with_picture=False), details(comparison)
        update_both(arguments.page, texts)
    for variant, (reason, _) in failed.items():
        say(f"failed: {variant}: {reason}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, nargs="+", required=True, help="where they exist")
    parser.add_argument(
        "--failed", required=True, help="the reason by variant, as JSON: in full, and for others"
    )
    parser.add_argument("--baseline", required=True)
    parser.add_argument("--experiment-command", required=True, help="what made these results")
    parser.add_argument("--page", type=Path, help="the page to keep current")
    parser.add_argument("--markdown", type=Path, required=True)
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    run(main, parser)
